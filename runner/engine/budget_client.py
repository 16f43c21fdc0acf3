"""A shard's client of the run's budget: it asks the governor for what the shard may spend, a block at a time."""

from __future__ import annotations

import asyncio

from runner.core.budget import Account, Fit
from runner.core.cost import Cost
from runner.core.governor_messages import MoneyGrant
from runner.core.model import Job
from runner.core.money import format_money, from_nanos
from runner.core.stop import Stop, StopReason
from runner.engine.budget import SharedBudgets
from runner.engine.governor_client import GovernorClient

BLOCK = 16
"""Jobs whose price a shard asks for at once."""
RETRY_S = 1.0


class BudgetClient:
    """
    One shard's part of the budgets of the run and of the command.

    Args:
        inner: The budgets that are shared with other runs, or None.
    """

    def __init__(
        self,
        governor: GovernorClient,
        currency: str,
        *,
        inner: SharedBudgets | None = None,
    ) -> None:
        self._governor = governor
        self._currency = currency
        self._inner = inner
        self._left = 0
        self._refused: MoneyGrant | None = None
        self._task: asyncio.Task[None] | None = None

    def count(self, account: Account) -> None:
        """Tell the governor from now on what the attempts of the shard cost, by their account."""
        self._governor.held = lambda: (account.used + self._left, account.open)

    def take(self, attempt: tuple[int, int], amount: int, day: str, can_free: int) -> Fit:
        """Take an amount for an attempt; `Fit.LATER` if it is asked for, or may come free."""
        if self._left < amount:
            if self._refused is not None and not self._refused.open and not can_free:
                return Fit.NEVER
            if self._task is None:
                self._task = asyncio.create_task(self._ask(amount - self._left, amount), name="budget")
            return Fit.LATER
        fit = Fit.FITS if self._inner is None else self._inner.take(attempt, amount, day, can_free)
        if fit is Fit.FITS:
            self._left -= amount
        return fit

    def put_back(self, attempt: tuple[int, int], amount: int) -> None:
        """Return an amount that was taken for an attempt that is not made."""
        self._left += amount
        if self._inner is not None:
            self._inner.put_back(attempt, amount)

    def changed(self, job: Job, cost: Cost) -> None:
        """Record that the cost of an attempt changes with the job's next commit."""
        if cost.amount < cost.reserved:
            self._refused = None
        if self._inner is not None:
            self._inner.changed(job, cost)

    def stop(self) -> None:
        """Give back what is set aside: nothing more is submitted."""
        self._left = 0
        if self._inner is not None:
            self._inner.stop()

    def exhausted(self, amount: int) -> Stop:
        """Return why the run stops for a job of this price."""
        if self._left >= amount and self._inner is not None:
            return self._inner.exhausted(amount)
        refused = self._refused
        assert refused is not None
        left = max(0, refused.limit - refused.used) + self._left
        message = (
            f"{refused.name}: {self._text(refused.used - self._left)} of {self._text(refused.limit)} used by all shards, "
            f"{self._text(left)} left; the next job may cost {self._text(amount)}"
        )
        return Stop(StopReason.BUDGET, message, "raise it, then run the same command again")

    async def close(self) -> None:
        """Ask for nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _ask(self, need: int, amount: int) -> None:
        try:
            reply = await self._governor.ask_money(need=need, wish=amount * BLOCK)
            if reply.amount:
                self._left += reply.amount
                self._refused = None
            else:
                self._refused = reply if reply.name else None
                if self._refused is None or self._refused.open:
                    # What other shards have open may come free, and nobody tells.
                    await asyncio.sleep(RETRY_S)
        finally:
            self._task = None
            self._governor.on_change()

    def _text(self, nanos: int) -> str:
        return format_money(from_nanos(nanos), self._currency)
