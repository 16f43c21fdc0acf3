"""What a request costs: one row for each rule."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from runner.core.prices import InputVideo, PageFacts, Price, PriceTable, Quote, Unit, Unpriced, quote

DAY = date(2026, 10, 7)
PAGE = PageFacts(
    defaults={"size": "1080P", "seconds": "5", "generate_audio": True, "draft": False},
    max_seconds=15,
    sizes=("720p", "1080p"),
)
SIZES = {"720p": Decimal("0.10"), "1080p": Decimal("0.20")}


def row(**values: Any) -> Price:
    """Return a row of one model's price per second."""
    return Price(**{"model": "m", "unit": Unit.SECOND, "sizes": {} if "price" in values else SIZES} | values)


def table(*rows: Price, currency: str = "USD") -> PriceTable:
    """Return a table of rows."""
    return PriceTable(checked=DAY, source="", currency=currency, prices=rows)


def media(*types: str) -> dict[str, Any]:
    """Return a request with media items of these types."""
    return {"media": [{"type": kind, "url": "https://example.com/x"} for kind in types]}


LIST = row()
PROMOTION = row(sizes={"720p": Decimal("0.04")}, until=DAY, note="promotion")
TOKENS = row(unit=Unit.MILLION_TOKENS, price=Decimal(4))
SILENT = row(price=Decimal("0.01"), when={"generate_audio": False})
DRAFT = row(price=Decimal("0.02"), when={"draft": True})
NO_INPUT = row(when={"input_video": False})
INPUT = row(price=Decimal(1), when={"media": "reference_video"})

RULES: dict[str, tuple[list[Price], dict[str, Any], str, str]] = {
    # name: rows, request, highest, basis
    "whole seconds times the price of the size": (
        [LIST], {"size": "720P", "seconds": "8"}, "0.80", "8 s at 0.1 USD a second in 720p"),
    "no size: the page's default": ([LIST], {"seconds": "8"}, "1.60", "in 1080p"),
    "no seconds: the page's default": ([LIST], {"size": "720p"}, "0.50", "5 s"),
    "seconds -1: the page's maximum": ([LIST], {"size": "720p", "seconds": "-1"}, "1.50", "at most 15 s"),
    "sizes in any letter case": ([LIST], {"size": "720p"}, "0.50", "in 720p"),
    "one price for every size": ([row(price=Decimal("0.3"))], {"size": "4k"}, "1.50", "5 s at 0.3"),
    "a price of zero is known": ([row(price=Decimal(0))], {}, "0", "5 s at 0 USD"),
    "a price per video": ([row(unit=Unit.VIDEO)], {"seconds": "-1"}, "0.20", "0.2 USD a video in 1080p"),
    "tokens up to the table's most": (
        [row(unit=Unit.MILLION_TOKENS, price=Decimal(4), most_tokens=250_000)], {}, "1.00", "at most 250,000 tokens"),
    "a promotion replaces the list price": ([LIST, PROMOTION], {"size": "720p"}, "0.20", "(promotion)"),
    "what a promotion leaves out stays at the list price": ([LIST, PROMOTION], {"size": "1080p"}, "1.00", "in 1080p"),
    "a condition on an absent key: the page's default": ([LIST, SILENT], {}, "1.00", "0.2 USD"),
    "a condition that is met": ([LIST, SILENT], {"generate_audio": False}, "0.05", "0.01 USD"),
    "a draft": ([LIST, DRAFT], {"draft": True, "size": "480p"}, "0.10", "0.02 USD"),
    "of two rows with as many conditions, the higher": (
        [SILENT, DRAFT], {"generate_audio": False, "draft": True}, "0.10", "0.02 USD"),
    "without an input video": ([NO_INPUT], {"size": "720p", **media("text")}, "0.50", "0.1 USD"),
    "with an input video": ([NO_INPUT, INPUT], media("text", "reference_video"), "5", "1 USD"),
    "first_clip: the whole result is billed, the clip included": (
        [LIST], {"seconds": "15", **media("first_clip")}, "3.00", "15 s at 0.2 USD"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    """Each rule gives the highest price and its basis."""
    rows, request, highest, basis = RULES[rule]

    price = quote({"model": "m", **request}, [table(*rows)], DAY, PAGE)

    assert isinstance(price, Quote)
    assert Decimal(highest) == price.highest
    assert basis in price.basis


UNKNOWN: dict[str, tuple[list[Price], dict[str, Any], PageFacts, str]] = {
    "another model": ([row(model="x")], {}, PAGE, "no table has a price of m"),
    "a size without a price": ([LIST], {"size": "4k"}, PAGE, "no price of m in 4k"),
    "a period that ended": ([PROMOTION], {}, PAGE, "ended on 2026-10-07"),
    "a period that has not begun": ([row(since=date(2026, 10, 9))], {}, PAGE, "begins later"),
    "conditions that are not met": ([NO_INPUT], media("reference_video"), PAGE, "conditions"),
    "tokens without a most": ([TOKENS], {}, PAGE, "most_tokens"),
    "no length on any page": ([LIST], {"size": "720p"}, PageFacts(), "longest video"),
    "no size on any page": ([LIST], {"seconds": "5"}, PageFacts(), "without a size"),
    "a billion or more": ([row(price=Decimal(999_999_999))], {}, PAGE, "a billion"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_is_not_zero(case: str) -> None:
    """What has no price says why."""
    rows, request, page, why = UNKNOWN[case]

    price = quote({"model": "m", **request}, [table(*rows)], date(2026, 10, 8), page)

    assert isinstance(price, Unpriced)
    assert why in price.why


def test_the_last_day_of_a_promotion_counts() -> None:
    """The first and the last day are in the period; the days beside them are not."""
    offer = row(price=Decimal("0.01"), since=date(2026, 10, 6), until=date(2026, 10, 7))

    def expected(day: int) -> Decimal:
        price = quote({"model": "m"}, [table(LIST, offer)], date(2026, 10, day), PAGE)
        assert isinstance(price, Quote)
        return price.highest

    assert [Decimal("1.00"), Decimal("0.05"), Decimal("0.05"), Decimal("1.00")] == [
        expected(n) for n in (5, 6, 7, 8)
    ]


def test_own_table_replaces_the_rows_of_its_models() -> None:
    """The first table with the model decides, even if only another one has the size."""
    own = table(row(sizes={"720p": Decimal(7)}), currency="EUR")

    price = quote({"model": "m", "size": "720p"}, [own, table(LIST)], DAY, PAGE)
    missing = quote({"model": "m", "size": "1080p"}, [own, table(LIST)], DAY, PAGE)

    assert isinstance(price, Quote)
    assert (Decimal(35), "EUR") == (price.highest, price.currency)
    assert isinstance(missing, Unpriced)


def test_without_a_default_size_the_most_expensive_counts() -> None:
    """A page that names no default says nothing of what is billed; an unknown price in the list is unknown."""
    page = PageFacts(defaults={"seconds": "6"}, max_seconds=10, sizes=("720p", "1080p"))

    price = quote({"model": "m"}, [table(LIST)], DAY, page)
    missing = quote({"model": "m"}, [table(PROMOTION)], DAY, page)

    assert isinstance(price, Quote)
    assert Decimal("1.20") == price.highest
    assert isinstance(missing, Unpriced)


@pytest.mark.parametrize(
    ("video", "seconds", "count", "most"),
    [
        (InputVideo(types=("reference_video",), each_s=30), "5", 1, 35),
        (InputVideo(types=("reference_video",), each_s=30), "5", 2, 65),
        (InputVideo(types=("reference_video",), each_s=15, together_s=15, with_output_s=30), "5", 3, 20),
        (InputVideo(types=("reference_video",), each_s=15, together_s=15, with_output_s=30), "20", 1, 30),
        (InputVideo(types=("reference_video",), each_s=15, together_s=15, with_output_s=30), "-1", 1, 30),
        (InputVideo(types=("reference_video",), each_s=15), "5", 0, 5),
    ],
)
def test_reference_videos_may_be_billed_too(video: InputVideo, seconds: str, count: int, most: int) -> None:
    """Where a page bills input and output, the longest input that it allows is reserved."""
    page = PageFacts(defaults=PAGE.defaults, max_seconds=30, input_video=video)
    request = {"model": "m", "size": "720p", "seconds": seconds, **media(*["reference_video"] * count)}

    price = quote(request, [table(LIST)], DAY, page)

    assert isinstance(price, Quote)
    assert Decimal("0.1") * most == price.highest
    assert (count > 0) is price.has_input
