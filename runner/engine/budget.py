"""
Whether there is money for a job: the budgets of the run, of this process, and of the day and the month.

The engine's admission asks `RunBudget` for each job, which is also told of every change of a job's cost. It keeps the
budgets of the run and of the process in memory, since only one process works on a run, and takes the day's and the
month's share from the ledger (`engine.allowance`). What it grants is on disk before the job is sent: the share in the
ledger, and then the job's own reservation in the commit of its intent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from runner.core.budget import Account, Fit
from runner.core.cost import SPEND_PARTS, Cost, CostState, Spend, reserve
from runner.core.model import Job
from runner.core.money import Money, format_money, from_nanos, to_nanos
from runner.core.prices import Quote, Unit, utc_day_and_text
from runner.core.stop import Stop, StopReason
from runner.jsontext import loads
from runner.schema.price_tables import Pricer


class Granted(Struct, frozen=True):
    """The job may be submitted; ``cost`` is saved with its intent, None if its price is not known."""

    cost: Cost | None


class MustWait(Struct, frozen=True):
    """The job may fit once something changes, which schedules again; ``why`` is the limit in words."""

    why: str


class Exhausted(Struct, frozen=True):
    """The job does not fit, and nothing in flight can change that."""

    stop: Stop


class SharedBudgets(Protocol):
    """The budgets that several runs share."""

    def take(self, attempt: tuple[int, int], amount: int, day: str, can_free: int) -> Fit:
        """
        Take an amount for an attempt out of a day's allowance; `Fit.LATER` if it is asked for, or may come free.

        Args:
            attempt: The job's key in the store, and the attempt's number.
        """

    def put_back(self, attempt: tuple[int, int], amount: int) -> None:
        """Return an amount that was taken for an attempt that is not made."""

    def changed(self, job: Job, cost: Cost) -> None:
        """Record that the cost of an attempt changes with the job's next commit."""

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
        shared: SharedBudgets | None = None,
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
        self._limited = tuple(each for each in (self.account, self._process) if each.limit is not None)
        self._sums: dict[str, Counter[str]] = defaultdict(Counter)
        for each in spent:
            self._sums[each.currency].update({name: getattr(each, name) for name in SPEND_PARTS})
            if each.currency == currency:
                self.account.used = self._sums[each.currency].total()
        # What each attempt in flight may still give back, and which of them count against a limit of this process.
        self._active: dict[int, int] = {}
        self._ours: set[int] = set()

    @property
    def spend(self) -> tuple[Spend, ...]:
        """What the attempts at the run's jobs cost, by currency."""
        return tuple(
            Spend(currency=name, **{part: sums[part] for part in SPEND_PARTS})
            for name, sums in sorted(self._sums.items())
        )

    def reserve(self, job: Job, text: str) -> Granted | MustWait | Exhausted:
        """Reserve the highest price of a job with this request."""
        if self._currency is None and job.model not in self._pricer.tables_by_model:
            return Granted(None)
        at = self._wall()
        day, day_text = utc_day_and_text(at)
        _, price = self._pricer.price(loads(text), day)
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
        for account in self._limited:
            if (fit := account.fit(cost.reserved)) is not Fit.FITS:
                if fit is Fit.LATER:
                    return MustWait(f"{account.name}: what is in flight must end first")
                return Exhausted(self._stop(account, cost))
        if self._shared is not None:
            fit = self._shared.take((job.seq, cost.number), cost.reserved, day_text, self.account.open)
            if fit is not Fit.FITS:
                if fit is Fit.LATER:
                    return MustWait("the day's or the month's budget")
                return Exhausted(self._shared.exhausted(cost.reserved))
        return self._grant(job, cost)

    def cancel(self, job: Job) -> None:
        """Take back what was granted to a job whose intent was not saved."""
        cost, job.cost = job.cost, None
        if cost is None:
            return
        self._sums[cost.currency][cost.state] -= cost.amount
        self._count(job.seq, cost, -cost.amount, 0)
        self._ours.discard(job.seq)
        if self._shared is not None and cost.currency == self._currency:
            self._shared.put_back((job.seq, cost.number), cost.reserved)

    def resume(self, job: Job) -> None:
        """Count a job of an earlier process, which may still give something back."""
        if job.cost is not None and job.cost.is_open:
            self._count(job.seq, job.cost, 0, job.cost.amount)

    def record(self, job: Job, before: Cost, after: Cost) -> None:
        """Record that a job was saved since its intent; its cost may have changed."""
        was, amount = before.amount, after.amount
        if after is not before:
            sums = self._sums[after.currency]
            sums[before.state] -= was
            sums[after.state] += amount
            if self._shared is not None:
                self._shared.changed(job, after)
        is_open = after.state is CostState.RESERVED
        can_free = amount if is_open and not job.state.has_ended else 0
        self._count(job.seq, after, amount - was, can_free)
        if self._ours and not is_open:
            self._ours.discard(job.seq)

    def stop(self) -> None:
        """Give back what is set aside for jobs: nothing more is submitted."""
        if self._shared is not None:
            self._shared.stop()

    def _grant(self, job: Job, cost: Cost) -> Granted:
        reserved = cost.reserved
        if self._process.limit is not None:
            self._ours.add(job.seq)
        self._sums[cost.currency][cost.state] += reserved
        self._count(job.seq, cost, reserved, reserved)
        return Granted(cost)

    def _count(self, seq: int, cost: Cost, change: int, can_free: int) -> None:
        """Add a change of what an attempt costs, and set what it may still give back."""
        if cost.currency != self._currency:
            return
        more = can_free - self._active.pop(seq, 0)
        if can_free:
            self._active[seq] = can_free
        account = self.account
        account.used += change
        account.open += more
        if self._ours and seq in self._ours:
            self._process.change(change, more)

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
    """Return the stop of a run whose next job does not fit into a budget."""
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
