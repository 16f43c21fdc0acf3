"""What jobs will cost: every job is counted once, currencies are never mixed, and what has no price is named or assumed."""

from __future__ import annotations

from decimal import Decimal

from runner.core.estimate import BillableUnits, CostEstimateBuilder, CostSum
from runner.core.money import Money
from runner.core.prices import Billable, Quote, Unit, Unpriced

HD, OPEN = Billable("720p", 5, 5), Billable("720p", None, 15)


def quote(highest: str, expected: str | None = None, currency: str = "USD") -> Quote:
    """Return a price."""
    return Quote(
        currency=currency,
        unit=Unit.SECOND,
        rate=Decimal("0.1"),
        highest=Decimal(highest),
        expected=Decimal(highest if expected is None else expected),
        basis="",
    )


def builder() -> CostEstimateBuilder:
    """Return an estimate of five jobs, of which two are priced in dollars, one in euros, and two not at all."""
    built = CostEstimateBuilder()
    built.add("a", HD, quote("0.50"))
    built.add("a", OPEN, quote("1.50", "0.50"))
    built.add("b", HD, quote("2", currency="EUR"))
    built.add("b", HD, Unpriced("no price"))
    built.add("b", HD, Unpriced("no price"))
    return built


def test_what_has_no_price_is_named() -> None:
    """Units, sums by currency, and the jobs that are in none."""
    estimate = builder().estimate()

    assert 5 == estimate.jobs
    assert (BillableUnits("a", "720p", 2, 5, 1), BillableUnits("b", "720p", 3, 15, 0)) == estimate.units
    assert (
        CostSum("USD", 2, Decimal("2.00"), Decimal("1.00")),
        CostSum("EUR", 1, Decimal(2), Decimal(2)),
    ) == estimate.sums
    assert ({"no price": 2}, 2) == (estimate.unknown, estimate.unknown_jobs)
    assert "1.00 to 2.00 USD and 2.00 EUR and 2 jobs of unknown price" == str(estimate)


def test_what_has_no_price_costs_what_is_assumed() -> None:
    """It adds to the sum of its currency, or makes one."""
    euros = builder().estimate(Money(Decimal(3), "EUR"))
    yen = builder().estimate(Money(Decimal(100), "JPY"))

    assert CostSum("EUR", 3, Decimal(8), Decimal(8)) == euros.sums[1]
    assert CostSum("JPY", 2, Decimal(200), Decimal(200)) == yen.sums[2]
    assert {} == euros.unknown == yen.unknown


def test_nothing_costs_nothing() -> None:
    """No job, no sum."""
    assert "nothing" == str(CostEstimateBuilder().estimate())
