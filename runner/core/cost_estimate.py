"""What a number of jobs will cost: billable units always, and sums where prices are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from runner.core.money import Money, amount_text, format_money
from runner.core.prices import Billable, Quote, Unpriced
from runner.core.units import format_count


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
