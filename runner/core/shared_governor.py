"""
The governor and the budget of a run with many shards: they decide for all what one process decides for itself.

Each POST of any shard needs a permit, which is given when its time has come, and not before: so an outage makes as many
jobs uncertain as in one process, and one rate holds. Only above `_BLOCKS_FROM_PER_S` are permits given some milliseconds
ahead, in blocks. A shard that dies keeps what it held until it is known what became of it.

Each shard holds a part of the budget: what its attempts cost, and what it may still spend. Only what no shard holds is
given away, so that all together never spend more, whichever of them dies: its part is held until its successor reports what
was spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf

from msgspec import Struct, field

from runner.core.budget import Account, block
from runner.core.governor import Blocked, ModelQueue, RunGovernor
from runner.core.governor_messages import (
    Answered,
    Ask,
    AskMoney,
    BudgetShare,
    Ended,
    Event,
    Hello,
    MoneyGrant,
    News,
    NotSubmitted,
    Permit,
    PermitGrant,
    ProbeAnswer,
    Report,
    Stopped,
    Tasks,
    Unused,
)
from runner.core.lifecycle import State
from runner.core.settings import Limits
from runner.core.stop import Stop, StopReason, stop_for_stall


class SharedBudget:
    """
    The budgets of a run's shards, in billionths of a currency.

    Args:
        run: The limit of all that the run costs, or None.
        process: The limit of what it costs from now on, or None.
        spent: What the attempts of each shard cost so far.

    >>> budget = SharedBudget(run=100)
    >>> budget.ask(AskMoney(shard=0, session="", budget=BudgetShare(), need=60, wish=60)).amount
    60
    >>> budget.ask(AskMoney(shard=1, session="", budget=BudgetShare(), need=60, wish=60)).amount
    0
    """

    def __init__(
        self, *, run: int | None = None, process: int | None = None, spent: Mapping[int, int] | None = None
    ) -> None:
        self._shares = {shard: BudgetShare(amount) for shard, amount in (spent or {}).items()}
        self._before = sum(share.held for share in self._shares.values())
        self._run = Account("budget.run", run)
        self._process = Account("--max-cost", process)

    def begin(self, shard: int, share: BudgetShare) -> None:
        """Record what a shard holds that begins, or that its governor has not known."""
        self._shares[shard] = share

    def update(self, shard: int, share: BudgetShare) -> None:
        """Record what a shard holds, unless it was given more since that report."""
        if share.grants >= self._shares.get(shard, share).grants:
            self._shares[shard] = share

    def ask(self, ask: AskMoney) -> MoneyGrant:
        """Give a shard what it needs, and up to what it wishes if much is left."""
        self.update(ask.shard, ask.budget)
        shares = self._shares.values()
        held, open_ = sum(share.held for share in shares), sum(share.open for share in shares)
        self._run.used, self._process.used = held, held - self._before
        amounts = {}
        for account in (self._run, self._process):
            amounts[account.name] = block(ask.need, ask.wish, account.left)
            if not amounts[account.name]:
                return MoneyGrant(
                    is_known=True, name=account.name, limit=account.limit or 0, used=account.used, open=open_
                )
        amount = min(amounts.values())
        mine = self._shares[ask.shard]
        self._shares[ask.shard] = BudgetShare(mine.held + amount, mine.open, mine.grants + 1)
        return MoneyGrant(is_known=True, amount=amount)


RECHECK_S = 1.0
"""How often it looks whether the passing of time alone lets the breaker change its mind."""
_PROBE_S = 60.0
"""After this time without an answer, another shard is asked for the free request."""
_BLOCKS_FROM_PER_S = 100.0
_BLOCK_S = 0.02
_OF_ALL = frozenset(
    {
        StopReason.AUTH,
        StopReason.QUOTA,
        StopReason.FORBIDDEN,
        StopReason.BAD_BASE_URL,
        StopReason.REFUSED,
        StopReason.UNAVAILABLE,
        StopReason.FAILURES,
        StopReason.CANARY,
        StopReason.LIMIT,
        StopReason.BUDGET,
        StopReason.LEDGER,
    }
)
"""Reasons that concern the whole run. What stops one shard alone, such as its disk, is no reason for the others."""


class _Shard(Struct):
    """
    What is known of a shard.

    Attributes:
        has_died: Whether its process has died, and no other one has registered.
    """

    tasks: Tasks
    permits: Counter[str] = field(default_factory=Counter)
    has_died: bool = False

    @property
    def in_flight(self) -> int:
        """Tasks that exist or may still be created."""
        return sum(self.tasks.in_flight.values()) + self.permits.total()


class SharedGovernor:
    """
    The limits of all shards of a run. Every ``now`` is a reading of one monotonic clock.

    Args:
        session: Names this governor, so that shards notice when it starts over.
        shards: How many shards the run has.
        limit: That of ``governor``, for messages.
        budget: What all shards may spend.

    Attributes:
        stops: Why nothing more is submitted.
    """

    def __init__(
        self,
        limits: Limits,
        governor: RunGovernor,
        *,
        session: str,
        shards: int,
        limit: int | None = None,
        budget: SharedBudget | None = None,
    ) -> None:
        self._limits = limits
        self._governor = governor
        self._session = session
        self._unseen = set(range(shards))
        self._limit = limit
        self._budget = budget or SharedBudget()
        self._shards: dict[int, _Shard] = {}
        self._asks: dict[int, Ask] = {}
        self._last_model: str | None = None
        self._probe_sent_at = -inf
        self._has_submitted = False
        self.stops: list[Stop] = []

    def hello(self, hello: Hello, now: float) -> News:
        """Register a shard, or register it again."""
        is_new, before = hello.shard in self._unseen, self._shards.get(hello.shard)
        self._forget_permits(hello.shard, now)
        permits = Counter(hello.permits)
        for _ in range(permits.total()):
            self._governor.breaker.record_sent(now)
        self._shards[hello.shard] = _Shard(hello.tasks, permits)
        self._budget.begin(hello.shard, hello.budget)
        if is_new:
            self._unseen.discard(hello.shard)
            self._governor.left -= hello.submitted
            if self._governor.canary is not None:
                self._governor.canary.record_earlier(**_for_canary(hello.tasks))
        elif before is not None and before.has_died:
            self._count_canaries_again()
        if not self._has_submitted:
            self._governor.slow_down(hello.learned)
        return self.news(now)

    def forget(self, shard: int, now: float, *, has_ended: bool = False) -> None:
        """
        Record that a shard's process has died: its tasks remain, and its permits are not used any more.

        Args:
            has_ended: Whether it ended by itself. Its last report may be lost, so nobody would say that its tasks ended.
        """
        known = self._shards.get(shard)
        is_unsure = known is not None and bool(known.permits.total() + _for_canary(known.tasks)["in_flight"])
        self._forget_permits(shard, now)
        if known is not None and has_ended:
            known.tasks = Tasks(counts={State.SUCCEEDED: known.tasks.counts.get(State.SUCCEEDED, 0)})
            if is_unsure:
                self._count_canaries_again()
        elif known is not None:
            known.has_died = True

    def _count_canaries_again(self) -> None:
        if self._governor.canary is None:
            return
        found = Counter[str]()
        for each in self._shards.values():
            found.update(_for_canary(each.tasks), in_flight=each.permits.total())
        self._governor.canary.count_again(succeeded=found["succeeded"], in_flight=found["in_flight"])

    def _forget_permits(self, shard: int, now: float) -> None:
        for number in [number for number, ask in self._asks.items() if ask.shard == shard]:
            del self._asks[number]
        known = self._shards.get(shard)
        if known is not None:
            for model in known.permits.elements():
                self._governor.record_abandoned(model, None, now)
            known.permits.clear()

    def report(self, report: Report, now: float) -> News:
        """Record what happened in a shard."""
        shard = self._shards.get(report.shard)
        if shard is None or report.session != self._session:
            return self.news(now, is_known=False)
        if report.has_progress:
            self._governor.stall_timer.record_progress()
        shard.tasks = report.tasks
        self._budget.update(report.shard, report.budget)
        for event in report.events:
            for stop in self._record(shard, event, now):
                self._stop(stop)
        return self.news(now)

    def _record(self, shard: _Shard, event: Event, now: float) -> list[Stop]:
        governor = self._governor
        match event:
            case Answered(model, outcome, age_s, took_s):
                if not shard.permits[model]:
                    return []
                shard.permits[model] -= 1
                at = now - age_s
                stop = governor.record_outcome(model, outcome, now, sent_at=at - took_s)
                return [] if stop is None else [stop]
            case Unused(model, failure, was_begun):
                if shard.permits[model]:
                    shard.permits[model] -= 1
                    governor.record_abandoned(model, failure, now)
                    if not was_begun:
                        governor.record_not_submitted(is_retried=True)
            case NotSubmitted(is_retried):
                governor.record_not_submitted(is_retried=is_retried)
            case Ended(state, is_own):
                return governor.record_end(state, pending=self._pending, is_own=is_own)
            case ProbeAnswer(is_healthy):
                self._probe_sent_at = -inf
                governor.record_probe(now, is_healthy=is_healthy)
            case Stopped(stop) if stop.reason in _OF_ALL:
                return [stop]
        return []

    def ask(self, number: int, ask: Ask) -> None:
        """Queue a wish for permits, which `due` grants in turn."""
        self._asks[number] = ask

    def withdraw(self, number: int) -> None:
        """Take a wish back."""
        self._asks.pop(number, None)

    def money(self, ask: AskMoney) -> MoneyGrant:
        """Give a shard more of the budget, if there is more."""
        if ask.shard not in self._shards or ask.session != self._session:
            return MoneyGrant(is_known=False)
        return self._budget.ask(ask)

    def due(self, now: float) -> list[tuple[int, PermitGrant]]:
        """Return the wishes that are answered now, by their numbers, with the answers."""
        self._stop_if_stalled(now)
        self._stop_at_limit()
        granted = []
        for number, ask in list(self._asks.items()):
            grant = self._answer(ask, now)
            if grant is not None:
                del self._asks[number]
                granted.append((number, grant))
        return granted

    def wakes_at(self, now: float) -> float | None:
        """Return when to call `due` again, if nothing happens before; None if nobody waits."""
        if not self._asks:
            return None
        opens_at = self._governor.pacer.opens_at
        return opens_at if now < opens_at < now + RECHECK_S else now + RECHECK_S

    def news(self, now: float, *, is_known: bool = True) -> News:
        """Return the state of the run."""
        governor = self._governor
        return News(
            session=self._session,
            is_known=is_known,
            per_s=governor.pacer.per_s,
            accepted_per_s=governor.pacer.accepted_per_s(now),
            wait_s=max(0.0, governor.pacer.opens_at - now),
            circuit=governor.breaker.state,
            why=self._why(now),
            message=governor.stall_timer.last_message,
            stops=tuple(self.stops),
            learned=governor.learned(),
        )

    def _answer(self, ask: Ask, now: float) -> PermitGrant | None:
        if ask.session != self._session or ask.shard not in self._shards:
            return PermitGrant(news=self.news(now, is_known=False))
        if self.stops:
            return PermitGrant(news=self.news(now))
        probe_at = self._governor.breaker.probe_at
        if probe_at is not None and probe_at <= now and now - self._probe_sent_at > _PROBE_S:
            self._probe_sent_at = now
            return PermitGrant(news=self.news(now), probe=True)
        permits: list[Permit] = []
        while len(permits) < ask.most and (permit := self._permit(ask, now)) is not None:
            permits.append(permit)
        return PermitGrant(news=self.news(now), permits=tuple(permits)) if permits else None

    def _permit(self, ask: Ask, now: float) -> Permit | None:
        """Give one permit to a shard, if all limits allow it now, or within the next block at a high rate."""
        governor = self._governor
        if governor.left <= 0:
            return None
        queues = [self._queue(model) for model in ask.models]
        ahead_s = _BLOCK_S if governor.pacer.per_s >= _BLOCKS_FROM_PER_S else 0.0
        choice = governor.choose(queues, free=self._free, after=self._last_model, now=now + ahead_s)
        if isinstance(choice, Blocked):
            return None
        at = min(max(now, governor.pacer.opens_at), now + ahead_s)
        self._last_model, self._has_submitted = choice, True
        governor.record_sent(choice, at)
        self._shards[ask.shard].permits[choice] += 1
        return Permit(choice, at - now)

    def _queue(self, model: str) -> ModelQueue:
        own = self._limits.models.get(model)
        if own is None or own.in_flight is None:
            return ModelQueue(model, 0)
        in_flight = sum(
            each.tasks.in_flight.get(model, 0) + each.permits[model] for each in self._shards.values()
        )
        return ModelQueue(model, in_flight, own.in_flight)

    @property
    def _free(self) -> int:
        """Further tasks that may exist in the run."""
        return self._limits.in_flight - sum(each.in_flight for each in self._shards.values())

    @property
    def _pending(self) -> int:
        """Jobs that are still to be submitted: those that are known, and one of each shard that is not."""
        known = (each.tasks.counts.get(State.PENDING, 0) for each in self._shards.values())
        return sum(known) + len(self._unseen)

    def _why(self, now: float) -> str:
        choice = self._governor.choose((), free=self._free, after=None, now=now)
        if isinstance(choice, Blocked) and choice.why:
            return choice.why
        return f"in_flight {self._limits.in_flight}" if self._free <= 0 else self._governor.why(now)

    def _stop(self, stop: Stop) -> None:
        if all(known.reason is not stop.reason for known in self.stops):
            self.stops.append(stop)

    def _stop_at_limit(self) -> None:
        """Stop once so many jobs were submitted that no answer can free a place."""
        unanswered = any(each.permits.total() for each in self._shards.values())
        if self._asks and self._governor.left <= 0 and not unanswered:
            self._stop(Stop(StopReason.LIMIT, f"--limit {self._limit} was reached"))

    def _stop_if_stalled(self, now: float) -> None:
        timer = self._governor.stall_timer
        if self._asks and now >= timer.expires_at:
            self._stop(stop_for_stall(timer.limit_s, timer.last_message))


def _for_canary(tasks: Tasks) -> dict[str, int]:
    """Return how many jobs have a video, and how many may get one."""
    counts = tasks.counts
    in_flight = counts.get(State.SUBMITTED, 0) + counts.get(State.DOWNLOADING, 0)
    return {"succeeded": counts.get(State.SUCCEEDED, 0), "in_flight": in_flight}
