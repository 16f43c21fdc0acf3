"""
How long jobs will take within the limits, which limit decides that, and what they will cost.

Costs are billable units always, and sums where prices are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType

from msgspec import Struct

from runner.core.money import Money, amount_text, format_money
from runner.core.prices import Billable, Quote, Unpriced
from runner.core.settings import Limits
from runner.core.units import format_count, format_rate

LEARNED_RATE = "rate learned from 429s and uncertain answers"


class BillableUnits(Struct, frozen=True):
    """
    What the jobs of one model and size are billed for.

    Attributes:
        size: In lower case; None if nothing says it.
        seconds: Of all clips whose length is known.
        open_ended: Clips whose length the model chooses, or nobody knows.
    """

    model: str
    size: str | None
    clips: int
    seconds: int
    open_ended: int


class CostSum(Struct, frozen=True):
    """The cost of the jobs that are priced in one currency; see `Quote`."""

    currency: str
    jobs: int
    highest: Decimal
    expected: Decimal

    def __str__(self) -> str:
        if self.expected == self.highest:
            return format_money(self.highest, self.currency)
        return f"{amount_text(self.expected)} to {format_money(self.highest, self.currency)}"


class CostEstimate(Struct, frozen=True):
    """
    What some jobs will cost.

    Attributes:
        units: By model and size, in the order in which they came.
        sums: By currency: two currencies never add up.
        unknown: Jobs without a known price, by the reason.
    """

    jobs: int
    units: tuple[BillableUnits, ...]
    sums: tuple[CostSum, ...]
    unknown: Mapping[str, int]

    @property
    def unknown_jobs(self) -> int:
        """The number of jobs without a known price."""
        return sum(self.unknown.values())

    def __str__(self) -> str:
        """Return the cost as a clause, such as ``at most 4.00 USD``."""
        sums = " and ".join(map(str, self.sums))
        if not self.unknown:
            return sums or "nothing"
        unknown = f"{format_count(self.unknown_jobs, 'job')} of unknown price"
        return f"{sums} and {unknown}" if sums else unknown


class CostEstimateBuilder:
    """Builds an estimate job by job, in constant memory."""

    def __init__(self) -> None:
        self._last: tuple[str, Billable, Quote | Unpriced] | None = None
        self._same = 0
        self._jobs = 0
        self._units: dict[tuple[str, str | None], list[int]] = {}
        self._sums: dict[str, list[Decimal]] = {}
        self._priced: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def add(self, model: str, bill: Billable, price: Quote | Unpriced) -> None:
        """Add a job."""
        last = self._last
        # Jobs in a row mostly have one price, which is added up once for all of them.
        if last is None or last[2] is not price or last[1] is not bill or last[0] != model:
            self._add_same()
            self._last = model, bill, price
        self._same += 1

    def _add_same(self) -> None:
        """Add the jobs that were like the last one."""
        if self._last is None:
            return
        (model, bill, price), jobs = self._last, self._same
        self._same = 0
        self._jobs += jobs
        units = self._units.setdefault((model, bill.size), [0, 0, 0])
        units[0] += jobs
        if bill.seconds is None:
            units[2] += jobs
        else:
            units[1] += bill.seconds * jobs
        if isinstance(price, Unpriced):
            self._unknown[price.why] += jobs
            return
        sums = self._sums.setdefault(price.currency, [Decimal(0), Decimal(0)])
        sums[0] += price.highest * jobs
        sums[1] += price.expected * jobs
        self._priced[price.currency] += jobs

    def estimate(self, unknown: Money | None = None) -> CostEstimate:
        """
        Return the estimate of the jobs so far.

        Args:
            unknown: What a job without a known price counts as; None leaves it unknown.
        """
        self._add_same()
        sums = {name: CostSum(name, self._priced[name], *amounts) for name, amounts in self._sums.items()}
        without_price = self._unknown.total()
        if unknown is not None and without_price:
            name, more = unknown.currency, unknown.amount * without_price
            known = sums.get(name, CostSum(name, 0, Decimal(0), Decimal(0)))
            sums[name] = CostSum(
                name, known.jobs + without_price, known.highest + more, known.expected + more
            )
        return CostEstimate(
            self._jobs,
            tuple(BillableUnits(model, size, *units) for (model, size), units in self._units.items()),
            tuple(sums.values()),
            dict(self._unknown) if unknown is None else {},
        )


class Estimate(Struct, frozen=True):
    """
    An estimate of the time left.

    Attributes:
        seconds: Until the last job has ended, if nothing goes wrong. The least that the limits allow, if no
            duration is known.
        limited_by: The limit that decides it, as the manifest names it, or `LEARNED_RATE`; empty if there is nothing to submit.
        is_known: Whether it considers how long tasks take, and not the limits alone.
    """

    seconds: float
    limited_by: str
    is_known: bool

    @property
    def known_s(self) -> float | None:
        """The seconds to show to somebody who waits; None before they are known."""
        return self.seconds if self.is_known else None


def estimate_duration(
    pending: Mapping[str, int],
    limits: Limits,
    mean_generate_s: Mapping[str, float],
    *,
    first_poll_s: float = 0.0,
    in_flight: int = 0,
    newest_task_s: float = 0.0,
    wait_s: float = 0.0,
    finished_per_s: float = 0.0,
    learned: Mapping[str, float] = MappingProxyType({}),
) -> Estimate:
    """
    Estimate how long it takes to submit and finish a number of jobs of each model.

    A model without known durations is assumed to be like the others. If no duration is known, the rates decide,
    and that a task is in flight at least until its first poll.

    Args:
        pending: Jobs to submit, by model.
        mean_generate_s: How long a task takes, by model, as far as known.
        first_poll_s: From a submission to the first poll.
        in_flight: Jobs that were submitted and have not ended.
        newest_task_s: How long the newest task has been running. Once it takes longer than others did, nobody knows how
            long, unless there are jobs to submit.
        wait_s: Until anything may be submitted.
        finished_per_s: The rate at which jobs ended lately; 0 if unknown. It tells more than the limits do.
        learned: Lower rates that an earlier run found to be allowed, by model; under "" for the whole run.

    >>> estimate_duration({"wan2.7-i2v": 120}, Limits(submit_per_s=1.0), {})
    Estimate(seconds=120.0, limited_by='limits.submit 1/s', is_known=False)
    >>> estimate_duration({"wan2.7-i2v": 120}, Limits(submit_per_s=1.0, in_flight=8), {"wan2.7-i2v": 90.0})
    Estimate(seconds=1350.0, limited_by='limits.in_flight 8', is_known=True)
    >>> estimate_duration({"wan2.7-i2v": 120}, Limits(submit_per_s=2.0, poll_per_s=0.5), {}).limited_by
    'limits.poll 30/min'
    >>> estimate_duration({}, Limits(), {"wan2.7-i2v": 90.0}, in_flight=1, newest_task_s=60.0).known_s
    30.0
    >>> estimate_duration({}, Limits(), {"wan2.7-i2v": 90.0}, in_flight=1, newest_task_s=95.0).known_s is None
    True
    """
    jobs = {model: count for model, count in pending.items() if count}
    left = sum(jobs.values()) + in_flight
    known = [mean_generate_s[model] for model in jobs if model in mean_generate_s] or list(
        mean_generate_s.values()
    )
    seconds, limited_by = max(known, default=0.0) - newest_task_s if in_flight else 0.0, ""
    is_overdue = seconds < 0 and not jobs
    if jobs:
        default_s = sum(known) / len(known) if known else 0.0
        task_s = {model: mean_generate_s.get(model, default_s) for model in jobs}
        bounds = _minimum_times(jobs, limits, task_s, learned, first_poll_s=first_poll_s, in_flight=in_flight)
        seconds, limited_by = max(bounds)
        seconds += wait_s
    if left and finished_per_s > 0:
        return Estimate(left / finished_per_s, limited_by, is_known=True)
    return Estimate(max(0.0, seconds), limited_by, is_known=(bool(known) or not left) and not is_overdue)


def _minimum_times(
    jobs: Mapping[str, int],
    limits: Limits,
    task_s: Mapping[str, float],
    learned: Mapping[str, float],
    *,
    first_poll_s: float,
    in_flight: int,
) -> Iterator[tuple[float, str]]:
    """Yield the shortest time that each limit alone allows, with the limit's name."""
    last_s = max(task_s.values())
    total = sum(jobs.values())
    per_s, name = _submit_rate("limits.submit", limits.submit_per_s, learned.get(""))
    yield total / per_s + last_s, name
    # Each task takes at least the poll that shows its end.
    yield (total + in_flight) / limits.poll_per_s + last_s, f"limits.poll {format_rate(limits.poll_per_s)}"
    # The tasks that exist already have used half of their time on average.
    busy_s = sum(count * task_s[model] for model, count in jobs.items()) + in_flight * last_s / 2
    # With fewer jobs than slots, the longest task decides.
    in_flight_s = max(
        busy_s / limits.in_flight, last_s, _least_turns_s(total, limits.in_flight, first_poll_s)
    )
    yield in_flight_s, f"limits.in_flight {limits.in_flight}"
    for model, count in jobs.items():
        own = limits.models.get(model)
        if own is not None and own.submit_per_s is not None:
            per_s, name = _submit_rate(f"limits.models.{model}.submit", own.submit_per_s, learned.get(model))
            yield count / per_s + task_s[model], name
        if own is not None and own.in_flight is not None:
            turns_s = _least_turns_s(count, own.in_flight, first_poll_s)
            yield (
                max(count * task_s[model] / own.in_flight, task_s[model], turns_s),
                f"limits.models.{model}.in_flight {own.in_flight}",
            )


def _least_turns_s(jobs: int, slots: int, first_poll_s: float) -> float:
    """Return how long it takes at least until the last job gets a slot: each is taken until its task's first poll."""
    return max(jobs / slots - 1, 0.0) * first_poll_s


def _submit_rate(name: str, configured_per_s: float, learned_per_s: float | None) -> tuple[float, str]:
    """Return the rate that holds, and its name."""
    if learned_per_s is None or learned_per_s >= configured_per_s:
        return configured_per_s, f"{name} {format_rate(configured_per_s)}"
    return (
        learned_per_s,
        f"{LEARNED_RATE} ({format_rate(learned_per_s)} of {name} {format_rate(configured_per_s)})",
    )
