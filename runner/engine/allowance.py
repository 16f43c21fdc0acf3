"""
One run's share of the budgets of the day and the month.

The ledger sets an allowance aside for the run, from which `take` grants without waiting; it is filled up in a thread
before it is empty. What becomes of the attempts is written to the ledger as soon as it is durable in ``run.db``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from runner.core.budget import Fit
from runner.core.cost import Cost
from runner.core.model import Job
from runner.core.money import format_money, from_nanos, to_nanos
from runner.core.prices import utc_day
from runner.core.stop import Stop, StopReason
from runner.errors import RunnerError
from runner.store import query
from runner.store.costs import LedgerEntry, entries, metadata_of
from runner.store.ledger import Exchange, Grant, Limits
from runner.store.store import Store

BLOCK = 256
"""Jobs whose price the run asks for at once, so that few jobs wait for the ledger; no more than it has to submit."""
FLUSH_S = 1.0
"""How long what became of an attempt may wait until it is written to the ledger."""


class RunLedger(Protocol):
    """What a process that works on a run asks of the ledger, wherever that is; see `Ledger`."""

    def open_run(self, token: str, name: str, path: str) -> tuple[int, bool]:
        """Register that a process works on a run; return its key, and whether `sync_run` is due."""

    def sync_run(self, run: int, entries: Iterable[LedgerEntry], *, replaced: Sequence[str] = ()) -> None:
        """Replace all that is known of a run."""

    def exchange(self, run: int, exchange: Exchange, limits: Limits) -> Grant:
        """Save what changed, give back what is not needed, and get a new allowance."""

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        """Save what changed, and free the allowance."""

    def close(self) -> None:
        """Close the ledger."""


class _Change(Struct, frozen=True):
    """A cost that is to be written to the ledger, once a commit is durable."""

    model: str
    cost: Cost
    commit: int


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
        limits: Limits,
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
        self._taken: dict[tuple[int, int], tuple[str, int]] = {}
        self._changes: dict[tuple[int, int], _Change] = {}
        self._wanted: tuple[str, int, int] | None = None
        self._refused: tuple[str, int, Grant] | None = None
        self._is_filled_up = True
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False
        self.on_change: Callable[[], None] = lambda: None
        self.on_stop: Callable[[Stop], None] = lambda _stop: None

    def take(self, amount: int, day: str, can_free: int) -> Fit:
        """
        Take an amount out of a day's allowance.

        Args:
            can_free: What jobs in flight may still give back.
        """
        have = self._left.get(day, 0)
        if have >= amount:
            self._left[day] = have - amount
            if have - amount < amount * BLOCK // 2 and self._is_filled_up:
                self._is_filled_up = False
                self._want(day, amount, amount)
            return Fit.FITS
        if self._has_failed:
            return Fit.LATER
        need = amount - have
        if self._refused is not None and self._refused[0] == day and self._refused[1] <= need:
            return Fit.LATER if self._fits(need, self._refused[2], can_free) else Fit.NEVER
        self._want(day, need, amount)
        return Fit.LATER

    def put_back(self, amount: int, day: str) -> None:
        """Return an amount that was taken and not used."""
        self._left[day] = self._left.get(day, 0) + amount

    def changed(self, job: Job, cost: Cost, *, is_new: bool) -> None:
        """Record that the cost of an attempt changed, or that it is about to be saved with its intent."""
        key = job.seq, cost.number
        if is_new:
            self._taken[key] = utc_day(cost.at).isoformat(), cost.reserved
            return
        self._changes[key] = _Change(job.model, cost, job.commit)
        if cost.amount < cost.reserved:
            self._refused, self._is_filled_up = None, True
        if self._timer is None and self._task is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._start)

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
        """Write what is left to the ledger, and give the rest of the allowance back."""
        if self._timer is not None:
            self._timer.cancel()
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._has_failed or self._store.error is not None:
            # The next process that works on the run brings the ledger up to date.
            return
        await self._store.durable(max((each.commit for each in self._changes.values()), default=0))
        keys = self._taken.keys() | self._changes.keys()
        found = [
            entry
            for entry in entries(self._store.reader, sorted({seq for seq, _ in keys}))
            if (entry.seq, entry.cost.number) in keys
        ]
        await asyncio.to_thread(self._ledger.close_run, self._run, found)

    def _fits(self, need: int, grant: Grant, can_free: int) -> bool:
        limits = ((self._limits.day, grant.day_used), (self._limits.month, grant.month_used))
        return all(
            limit is None or used - can_free + need <= to_nanos(limit.amount) for limit, used in limits
        )

    def _want(self, day: str, need: int, amount: int) -> None:
        self._wanted = day, need, amount
        if self._task is None:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and not self._has_failed:
            self._task = asyncio.create_task(self._exchange(), name="ledger")

    async def _exchange(self) -> None:
        try:
            while self._wanted is not None or self._changes:
                await self._exchange_once()
        except RunnerError as error:
            self._has_failed = True
            self.on_stop(Stop(StopReason.LEDGER, error.message, error.hint))
        finally:
            self._task = None
        self.on_change()

    async def _exchange_once(self) -> None:
        wanted, self._wanted = self._wanted, None
        changes, self._changes = self._changes, {}
        await self._store.durable(max((each.commit for each in changes.values()), default=0))
        give_back: dict[tuple[str, str], int] = {}
        new = changes.keys() & self._taken.keys()
        for key in changes:
            if (taken := self._taken.pop(key, None)) is not None:
                give_back[taken[0], self._currency] = give_back.get((taken[0], self._currency), 0) + taken[1]
        day, need, amount = wanted or ("", 0, 0)
        have, block = self._left.get(day, 0), min(BLOCK, query.pending_up_to(self._store.reader, BLOCK))
        if have >= amount and have >= amount * block:
            # What is left is enough for all that the run has to submit; others may need the rest.
            need = 0
            if not changes and not give_back:
                return
        for other in [each for each in self._left if wanted is not None and each < day]:
            rest = self._left.pop(other)
            give_back[other, self._currency] = give_back.get((other, self._currency), 0) + rest
        metadata = metadata_of(self._store.reader, [seq for seq, _ in changes])
        exchange = Exchange(
            entries=[
                LedgerEntry(
                    key[0],
                    each.model,
                    utc_day(each.cost.at).isoformat(),
                    metadata[key[0]],
                    each.cost,
                    key in new,
                )
                for key, each in changes.items()
            ],
            give_back=give_back,
            day=day,
            currency=self._currency,
            need=need,
            ask=amount * block - (have if block < BLOCK else 0),
        )
        grant = await asyncio.to_thread(self._ledger.exchange, self._run, exchange, self._limits)
        if wanted is None:
            return
        if grant.amount:
            self._left[day] = self._left.get(day, 0) + grant.amount
            self._refused, self._is_filled_up = None, block == BLOCK
        elif self._left.get(day, 0) < amount:
            self._refused = day, need, grant
        self.on_change()

    def _text(self, nanos: int) -> str:
        return format_money(from_nanos(nanos), self._currency)
