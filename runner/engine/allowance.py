"""
One run's share of the budgets of the day and the month.

The ledger sets an allowance aside for the run, from which `take` grants without waiting. It is filled up in a thread
before it is empty, so that a job waits for the ledger only where the budget is nearly used up: then the ledger gives
less at a time, in the end the price of one job. What becomes of the attempts is written to the ledger once it is
durable in ``run.db``, with the allowance in one transaction, at most about once a second. What is not needed goes back
when nothing more is to be submitted.

Until then others can't have it, so that they may be refused what this run does not use in the end: they are too careful,
and the limits hold whichever process dies.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

from runner.core.budget import Fit, ReservePace
from runner.core.cost import Cost
from runner.core.model import Job
from runner.core.money import format_money, from_nanos, to_nanos
from runner.core.stop import Stop, StopReason
from runner.engine.progress import stop_for_error
from runner.errors import RunnerError
from runner.store import work_list
from runner.store.costs import LedgerEntry, entries, metadata_of
from runner.store.ledger import Exchange, Grant, LedgerLimits
from runner.store.store import Store
from runner.store.writer import in_thread

FLUSH_S = 1.0
"""How long what became of an attempt may wait until it is written to the ledger."""


class RunLedger(Protocol):
    """What a process that works on a run asks of the ledger, wherever that is; see `Ledger`."""

    def open_run(self, token: str, name: str, path: str) -> tuple[int, bool]:
        """Register that a process works on a run; return its key, and whether `sync_run` is due."""

    def sync_run(self, run: int, entries: Iterable[LedgerEntry], *, replaced: Sequence[str] = ()) -> None:
        """Replace all that is known of a run."""

    def exchange(self, run: int, exchange: Exchange, limits: LedgerLimits) -> Grant:
        """Save what changed, give back what is not needed, and get a new allowance."""

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        """Save what changed, and free the allowance."""

    def close(self) -> None:
        """Close the ledger."""


class Allowance:
    """
    The share of one process's work on a run.

    Args:
        run: The run's key in the ledger.
        smaller: As for `RunBudget`.

    Attributes:
        on_change: Called when more may be granted than before.
        on_stop: Called when the ledger can't be used any more.
    """

    def __init__(
        self,
        ledger: RunLedger,
        run: int,
        limits: LedgerLimits,
        currency: str,
        store: Store,
        *,
        smaller: Callable[[int], str],
    ) -> None:
        self._ledger = ledger
        self._run = run
        self._limits = limits
        self._currency = currency
        self._store = store
        self._smaller = smaller
        self._left: dict[str, int] = {}
        # What was taken for attempts that the ledger does not have, by the keys of their jobs and their numbers.
        self._taken: dict[tuple[int, int], tuple[str, int]] = {}
        self._changes: list[tuple[Job, Cost]] = []
        self._pace = ReservePace(asyncio.get_running_loop().time())
        self._ahead = 0
        # The day and the price of the last job, and what it needs if it waits.
        self._last = "", 0
        self._need = 0
        self._may_ask = True
        self._has_ended = False
        self._refused: tuple[str, int, Grant] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.on_change: Callable[[], None] = lambda: None
        self.on_stop: Callable[[Stop], None] = lambda _stop: None

    def take(self, attempt: tuple[int, int], amount: int, day: str, can_free: int) -> Fit:
        """
        Take an amount for an attempt out of a day's allowance.

        Args:
            attempt: The job's key in the store, and the attempt's number.
            can_free: What jobs in flight may still give back.
        """
        have, self._last = self._left.get(day, 0), (day, amount)
        if have >= amount:
            self._left[day] = have - amount
            self._taken[attempt] = day, amount
            self._pace.taken += amount
            if (have - amount) * 2 < self._ahead and self._may_ask:
                self._may_ask = False
                self._start()
            return Fit.FITS
        if self._is_closed:
            return Fit.LATER
        need = amount - have
        if self._refused is not None and self._refused[0] == day and self._refused[1] <= need:
            return Fit.LATER if self._fits(need, self._refused[2], can_free) else Fit.NEVER
        self._need = need
        self._start()
        return Fit.LATER

    def put_back(self, attempt: tuple[int, int], amount: int) -> None:
        """Return an amount that was taken for an attempt that is not made."""
        day, _ = self._taken.pop(attempt)
        self._left[day] = self._left.get(day, 0) + amount

    def changed(self, job: Job, cost: Cost) -> None:
        """Record that the cost of an attempt changes with the job's next commit."""
        self._changes.append((job, cost))
        if cost.amount < cost.reserved:
            self._refused, self._may_ask = None, True
        if self._timer is None:
            self._start_soon()

    def stop(self) -> None:
        """Give back what is set aside: nothing more is submitted."""
        self._has_ended = True
        self._start()

    def exhausted(self, amount: int) -> Stop:
        """Return why the run stops for a job of this price."""
        assert self._refused is not None
        day, _, grant = self._refused
        names = (
            ("budget.day", self._limits.day, grant.day_used, "the next day (UTC)"),
            ("budget.month", self._limits.month, grant.month_used, "the next month (UTC)"),
        )
        lefts = [
            (to_nanos(limit.amount) - used, name, limit, used, when)
            for name, limit, used, when in names
            if limit is not None
        ]
        left, name, limit, used, when = min(lefts)
        left = max(0, left) + self._left.get(day, 0)
        used -= self._left.get(day, 0)
        message = (
            f"{name}: {self._text(used)} of {limit} used by all runs, {self._text(left)} left; "
            f"the next job may cost {self._text(amount)}"
        )
        hint = f"run the same command again {when}, or raise {name} in the manifest"
        fits = self._smaller(left)
        return Stop(StopReason.BUDGET, message, f"{fits}; {hint}" if fits else hint)

    async def close(self) -> None:
        """Write what is left to the ledger, and give the rest of the allowance back; report if that fails."""
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._timer is not None:
            self._timer.cancel()
        if self._is_closed or self._store.error is not None:
            return
        self._is_closed = True
        try:
            await self._write_rest()
        except RunnerError as error:
            where = self._store.run_dir
            message = f"{error.message}; until the run is continued, what it spent is only in {where}"
            self.on_stop(Stop(StopReason.LEDGER, message, error.hint))
        except Exception as error:
            self.on_stop(stop_for_error(error, self._store.run_dir))

    async def _write_rest(self) -> None:
        await self._store.durable(max((job.commit for job, _ in self._changes), default=0))
        seqs = {seq for seq, _ in self._taken} | {job.seq for job, _ in self._changes}
        found = list(entries(self._store.reader, sorted(seqs)))
        await in_thread(self._ledger.close_run, self._run, found)

    def _fits(self, need: int, grant: Grant, can_free: int) -> bool:
        limits = ((self._limits.day, grant.day_used), (self._limits.month, grant.month_used))
        return all(
            limit is None or used - can_free + need <= to_nanos(limit.amount) for limit, used in limits
        )

    def _start_soon(self) -> None:
        if self._timer is None and self._task is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._exchange(), name="ledger")

    async def _exchange(self) -> None:
        try:
            await self._exchange_once()
        except RunnerError as error:
            self._is_closed = True
            self.on_stop(Stop(StopReason.LEDGER, error.message, error.hint))
        except Exception as error:
            # Such as one of SQLite. Who waits for the ledger would wait forever.
            self._is_closed = True
            self.on_stop(stop_for_error(error, self._store.run_dir))
        finally:
            self._task = None
        if self._changes:
            self._start_soon()
        # Who still needs something asks again.
        self._need = 0
        self.on_change()

    async def _exchange_once(self) -> None:
        need, (day, price) = self._need, self._last
        changes, self._changes = self._changes, []
        # A change is made before it has a commit; by now the job's newest one has it.
        await self._store.durable(max((job.commit for job, _ in changes), default=0))
        give_back: defaultdict[str, int] = defaultdict(int)
        latest = {(job.seq, cost.number): (job, cost) for job, cost in changes}
        new = latest.keys() & self._taken.keys()
        for attempt in new:
            taken_on, amount = self._taken.pop(attempt)
            give_back[taken_on] += amount
        jobs = self._jobs_ahead(price, is_waiting=need > 0)
        for other in [past for past in self._left if past < day]:
            give_back[other] += self._left.pop(other)
        if (ask := price * jobs - self._left.get(day, 0)) < 0 and not self._may_ask:
            self._left[day] += ask
            give_back[day] -= ask
        need, ask = (need or min(price, ask), ask) if ask > 0 else (0, 0)
        if not (changes or give_back or need):
            return
        exchange = Exchange(
            entries=self._entries(latest, new),
            give_back=give_back,
            day=day,
            currency=self._currency,
            need=need,
            ask=ask,
        )
        grant = await in_thread(self._ledger.exchange, self._run, exchange, self._limits)
        if grant.amount:
            self._left[day] = self._left.get(day, 0) + grant.amount
            self._refused, self._may_ask = None, self._may_ask or grant.amount < ask
        elif need:
            self._may_ask = False
            # What was released in the meantime may be enough.
            is_final = all(cost.amount >= cost.reserved for _, cost in self._changes)
            if self._left.get(day, 0) < price and is_final:
                self._refused = day, need, grant

    def _jobs_ahead(self, price: int, *, is_waiting: bool) -> int:
        """Return for how many jobs of a price to set money aside: for no more than are to be submitted."""
        self._ahead = self._pace.ahead(price, asyncio.get_running_loop().time())
        most = self._ahead // max(1, price)
        pending = 0 if self._has_ended else work_list.pending_up_to(self._store.reader, most)
        self._may_ask = most == pending
        # One that waits may have become pending again in a commit that is not yet durable.
        return max(pending, 1) if is_waiting else pending

    def _entries(
        self, changes: Mapping[tuple[int, int], tuple[Job, Cost]], new: Set[tuple[int, int]]
    ) -> list[LedgerEntry]:
        metadata = metadata_of(self._store.reader, [seq for seq, _ in changes])
        return [
            LedgerEntry(key[0], job.model, metadata.get(key[0], "{}"), cost, key in new)
            for key, (job, cost) in changes.items()
        ]

    def _text(self, nanos: int) -> str:
        return format_money(from_nanos(nanos), self._currency)
