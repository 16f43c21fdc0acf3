"""
Whether there is money for a job: the budgets of the run, of this process, and of the day and the month.

The engine's admission asks a `Budget` for each job, and hears of every change of a job's cost. This one keeps the
budgets of the run and of the process in memory, since only one process works on a run, and takes the day's and the
month's share from the ledger (`engine.allowance`). What it grants is on disk before the job is sent: the share in the
ledger, and then the job's own reservation in the commit of its intent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from runner import jsontext
from runner.core.budget import Account, Fit
from runner.core.cost import Cost, CostState, Spend, reserve
from runner.core.model import Job
from runner.core.money import Money, format_money, from_nanos, to_nanos
from runner.core.prices import Quote, Unit, Unpriced, utc_day
from runner.core.stop import Stop, StopReason
from runner.schema.pricing import Pricer


class Granted(Struct, frozen=True):
    """The job may be submitted; ``cost`` is saved with its intent, None if its price is not known."""

    cost: Cost | None


class MustWait(Struct, frozen=True):
    """The job may fit once something changes, which schedules again; ``why`` is the limit in words."""

    why: str


class Exhausted(Struct, frozen=True):
    """The job does not fit, and nothing in flight can change that."""

    stop: Stop


class Budget(Protocol):
    """What admission asks before a job is submitted."""

    def reserve(self, job: Job, text: str) -> Granted | MustWait | Exhausted:
        """Reserve the highest price of a job with this request."""

    def cancel(self, job: Job) -> None:
        """Take back what was granted to a job whose intent was not saved."""

    def resume(self, job: Job) -> None:
        """Count a job of an earlier process, which may still give something back."""

    def record(self, job: Job, before: Cost, after: Cost, is_new: bool) -> None:
        """Record that a job was saved; its cost may have changed."""

    def stop(self) -> None:
        """Give back what is set aside for jobs: nothing more is submitted."""

    @property
    def spend(self) -> tuple[Spend, ...]:
        """What the attempts at the run's jobs cost, by currency."""


class Shared(Protocol):
    """The budgets that several runs share."""

    def take(self, amount: int, day: str, can_free: int) -> Fit:
        """Take an amount out of a day's allowance; `Fit.LATER` if it is asked for, or may come free."""

    def put_back(self, amount: int, day: str) -> None:
        """Return an amount that was taken and not used."""

    def changed(self, job: Job, cost: Cost, *, is_new: bool) -> None:
        """Record that the cost of an attempt changed, or that it is about to be saved with its intent."""

    def stop(self) -> None:
        """Give back what is set aside for jobs: nothing more is submitted."""

    def exhausted(self, amount: int) -> Stop:
        """Return why the run stops for a job of this price."""


class RunBudget:
    """
    The budgets of one process's work on a run.

    Args:
        currency: Of the budgets; None if there are none, so that everything is granted.
        unknown: What a job without a known price counts as; None refuses such jobs if there is a budget.
        spent: What the run's attempts cost so far.
        wall: Reads the wall clock, in seconds since 1970.
        smaller: Returns which pending jobs cost at most an amount, as a sentence, or an empty text.

    Attributes:
        account: What the attempts of the run cost, in the currency of the budgets.
    """

    def __init__(
        self,
        pricer: Pricer,
        *,
        currency: str | None = None,
        run: Money | None = None,
        process: Money | None = None,
        unknown: Money | None = None,
        shared: Shared | None = None,
        spent: tuple[Spend, ...] = (),
        wall: Callable[[], float],
        smaller: Callable[[int], str] = lambda _left: "",
    ) -> None:
        self._pricer = pricer
        self._currency = currency
        self._unknown = unknown
        self._shared = shared
        self._wall = wall
        self._smaller = smaller
        self.account = Account("budget.run", None if run is None else to_nanos(run.amount))
        self._process = Account("--max-cost", None if process is None else to_nanos(process.amount))
        self._sums: dict[str, dict[CostState, int]] = {}
        for each in spent:
            sums: dict[CostState, int] = {
                state: getattr(each, state) for state in CostState if state is not CostState.RELEASED
            }
            self._sums[each.currency] = sums
            if each.currency == currency:
                self.account.used = sum(sums.values())
        self._active: dict[int, int] = {}
        self._ours: set[int] = set()

    @property
    def spend(self) -> tuple[Spend, ...]:
        """What the attempts at the run's jobs cost, by currency."""
        return tuple(
            Spend(currency=name, **{state.value: amount for state, amount in sums.items()})
            for name, sums in sorted(self._sums.items())
        )

    def reserve(self, job: Job, text: str) -> Granted | MustWait | Exhausted:
        """Reserve the highest price of a job with this request."""
        if self._currency is None and self._pricer.table_of(job.model) is None:
            return Granted(None)
        at = self._wall()
        day = utc_day(at)
        price: Quote | Unpriced = self._pricer.quote(jsontext.loads(text), day)
        if isinstance(price, Quote):
            cost = reserve(price, number=job.attempt + 1, at=at)
        elif self._unknown is not None:
            cost = assumed(self._unknown, number=job.attempt + 1, at=at)
        elif self._currency is None:
            return Granted(None)
        else:
            return Exhausted(_unknown_stop(job.job_id, price.why))
        if self._currency is None:
            return self._grant(job, cost)
        if cost.currency != self._currency:
            return Exhausted(_currency_stop(job.job_id, cost.currency, self._currency))
        for account in (self.account, self._process):
            match account.fit(cost.reserved):
                case Fit.LATER:
                    return MustWait(f"{account.name}: what is in flight must end first")
                case Fit.NEVER:
                    return Exhausted(self._stop(account, cost))
        if self._shared is not None:
            match self._shared.take(cost.reserved, day.isoformat(), self.account.open):
                case Fit.LATER:
                    return MustWait("the day's or the month's budget")
                case Fit.NEVER:
                    return Exhausted(self._shared.exhausted(cost.reserved))
        return self._grant(job, cost)

    def cancel(self, job: Job) -> None:
        """Take back what was granted to a job whose intent was not saved."""
        cost, job.cost = job.cost, None
        if cost is None:
            return
        self._add(cost, -cost.amount)
        self._set_active(job.seq, cost, 0)
        if job.seq in self._ours:
            self._ours.discard(job.seq)
            self._process.used -= cost.amount
        if self._shared is not None and cost.currency == self._currency:
            self._shared.put_back(cost.reserved, cost.day)

    def resume(self, job: Job) -> None:
        """Count a job of an earlier process, which may still give something back."""
        if job.cost is not None and job.cost.is_open:
            self._set_active(job.seq, job.cost, job.cost.amount)

    def record(self, job: Job, before: Cost, after: Cost, is_new: bool) -> None:
        """Record that a job was saved; its cost may have changed."""
        if is_new:
            # It was counted when it was granted.
            if self._shared is not None:
                self._shared.changed(job, after, is_new=True)
            return
        is_open, amount = after.is_open, after.amount
        self._set_active(job.seq, after, amount if is_open and not job.state.has_ended else 0)
        if after is not before:
            was = before.amount
            self._add(before, -was)
            self._add(after, amount)
            if job.seq in self._ours:
                self._process.used += amount - was
            if self._shared is not None:
                self._shared.changed(job, after, is_new=False)
        if not is_open:
            self._ours.discard(job.seq)

    def stop(self) -> None:
        """Give back what is set aside for jobs: nothing more is submitted."""
        if self._shared is not None:
            self._shared.stop()

    def _grant(self, job: Job, cost: Cost) -> Granted:
        self._ours.add(job.seq)
        self._process.used += cost.reserved
        self._add(cost, cost.reserved)
        self._set_active(job.seq, cost, cost.reserved)
        return Granted(cost)

    def _add(self, cost: Cost, amount: int) -> None:
        if cost.state is CostState.RELEASED:
            return
        sums = self._sums.setdefault(cost.currency, {})
        sums[cost.state] = sums.get(cost.state, 0) + amount
        if cost.currency == self._currency:
            self.account.used += amount

    def _set_active(self, seq: int, cost: Cost, amount: int) -> None:
        """Set what an attempt in flight may still give back."""
        if cost.currency != self._currency:
            return
        change = amount - self._active.pop(seq, 0)
        if amount:
            self._active[seq] = amount
        self.account.open += change
        if seq in self._ours:
            self._process.open += change

    def _stop(self, account: Account, cost: Cost) -> Stop:
        limit, left = account.limit or 0, account.left or 0
        used = f"{_money(account.used, cost)} of {_money(limit, cost)}"
        hint = "raise it" if account is self._process else "raise budget.run in the manifest"
        return budget_stop(
            account.name, used, left, cost, f"{hint}, then run the same command again", self._smaller
        )


def budget_stop(
    name: str, used: str, left: int, cost: Cost, hint: str, smaller: Callable[[int], str]
) -> Stop:
    """Return why a run stops whose next job does not fit into a budget."""
    message = (
        f"{name}: {used} used, {_money(left, cost)} left; the next job may cost {_money(cost.reserved, cost)}"
    )
    fits = smaller(left)
    return Stop(StopReason.BUDGET, message, f"{fits}; {hint}" if fits else hint)


def assumed(money: Money, *, number: int, at: float) -> Cost:
    """Return the cost of a job without a known price: what the budget says that it counts as."""
    return Cost(
        number=number,
        at=at,
        currency=money.currency,
        reserved=to_nanos(money.amount),
        unit=Unit.VIDEO,
        rate=str(money.amount),
        basis="assumed",
    )


def _unknown_stop(job_id: str, why: str) -> Stop:
    return Stop(
        StopReason.BUDGET,
        f"the price of {job_id} is not known: {why}",
        "add it to the manifest's prices, or say what such jobs count as: budget.unknown: 0.50 USD",
    )


def _currency_stop(job_id: str, currency: str, wanted: str) -> Stop:
    return Stop(
        StopReason.BUDGET,
        f"the price of {job_id} is in {currency}, and the budget in {wanted}",
        f"write the budget in {currency}; nothing is converted",
    )


def _money(nanos: int, cost: Cost) -> str:
    return format_money(from_nanos(nanos), cost.currency)
