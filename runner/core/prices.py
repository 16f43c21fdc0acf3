"""
What a request costs: request + table + date -> highest, expected, basis.

A price table lists prices by model, size and conditions; `PageFacts` is what the model's page says of a request that
leaves something out. Unknown is not zero: a request without a price has none, and the reason says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from msgspec import Struct, field

from runner.core.money import MAX_AMOUNT, round_up
from runner.core.units import format_count

OLD_AFTER_DAYS = 90
"""A table that was last checked longer ago is worth a warning."""

INPUT_VIDEO = "input_video"
"""The condition for requests with a video among their media."""
MEDIA = "media"
"""The condition for requests with an item of a type among their media."""

_VIDEO_TYPES = frozenset({"reference_video", "first_clip"})


class Unit(StrEnum):
    """What a price is for one of."""

    SECOND = "second"
    VIDEO = "video"
    MILLION_TOKENS = "million_tokens"


class Price(Struct, frozen=True, kw_only=True):
    """
    One row of a price table.

    Attributes:
        price: For every size; None if it depends on the size.
        sizes: By size, in lower case; empty if it does not depend on it.
        since: The first day on which it holds, or None.
        until: The last day on which it holds, or None.
        when: Values that the request must have, `INPUT_VIDEO` and `MEDIA` among them.
        most_tokens: The most tokens that a task takes; None if unknown.
    """

    model: str
    unit: Unit
    price: Decimal | None = None
    sizes: Mapping[str, Decimal] = field(default_factory=dict)
    since: date | None = None
    until: date | None = None
    when: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    most_tokens: int | None = None

    def price_of(self, size: str | None) -> Decimal | None:
        """Return the price for a size, whatever its letter case; None if there is none."""
        return self.price if self.price is not None else self.sizes.get((size or "").lower())

    def holds_on(self, day: date) -> bool:
        """Return whether a day is in the row's period, whose first and last day count."""
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


class PriceTable(Struct, frozen=True, kw_only=True):
    """
    Prices in one currency.

    Attributes:
        checked: When a person last compared it with its source.
    """

    checked: date
    source: str
    currency: str
    prices: tuple[Price, ...]

    def age_days(self, today: date) -> int:
        """Return how many days ago the table was checked."""
        return (today - self.checked).days


def age_text(days: int) -> str:
    """
    Return how old a price table is, for people.

    >>> age_text(0), age_text(1), age_text(120)
    ('checked today', 'checked 1 day ago', 'checked 120 days ago: compare it with its source')
    """
    if days <= 0:
        return "checked today"
    old = ": compare it with its source" if days > OLD_AFTER_DAYS else ""
    return f"checked {format_count(days, 'day')} ago{old}"


class InputVideo(Struct, frozen=True, kw_only=True):
    """
    Videos of a request whose seconds are billed like those that are made (fact F142).

    Attributes:
        types: The types of the media items.
        each_s: The most seconds of one.
        together_s: The most of all of them, or None.
        with_output_s: The most of them and of the video that is made, or None.
    """

    types: tuple[str, ...]
    each_s: int
    together_s: int | None = None
    with_output_s: int | None = None


class PageFacts(Struct, frozen=True, kw_only=True):
    """
    What the page of a model says of a request that leaves something out.

    Attributes:
        defaults: What the server uses for absent keys.
        max_seconds: The longest video, or None if the page does not say.
        sizes: All sizes of the model; empty if the page does not say.
        most_tokens: The most tokens that a task takes, or None.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    max_seconds: int | None = None
    sizes: tuple[str, ...] = ()
    most_tokens: int | None = None
    input_video: InputVideo | None = None


class Quote(Struct, frozen=True, kw_only=True):
    """
    What a request costs.

    Attributes:
        rate: The price of one unit.
        highest: What it may cost at most; this much is reserved.
        expected: What it costs if the page's defaults and the request hold.
        basis: How the highest was computed, for people.
        has_input: Whether the seconds of videos in the request are billed too.
    """

    currency: str
    unit: Unit
    rate: Decimal
    highest: Decimal
    expected: Decimal
    basis: str
    has_input: bool = False


class Unpriced(Struct, frozen=True):
    """The price of a request is not known; ``why`` is a clause."""

    why: str


class Billable(Struct, frozen=True):
    """
    What a request is billed for, whatever its price.

    Attributes:
        size: In lower case; None if neither the request nor the page names one.
        seconds: As the request or the page has it; None if neither says, or the model chooses.
        max_seconds: At most, of the video alone; None if unknown.
        max_input_s: The most seconds of videos in the request that are billed too.
    """

    size: str | None
    seconds: int | None
    max_seconds: int | None
    max_input_s: int = 0


def billable(request: Mapping[str, Any], facts: PageFacts) -> Billable:
    """
    Return what a request is billed for, with the page's defaults for what is absent.

    >>> billable({"seconds": "-1"}, PageFacts(defaults={"size": "720P", "seconds": "5"}, max_seconds=12))
    Billable(size='720p', seconds=None, max_seconds=12, max_input_s=0)
    """
    size = request.get("size", facts.defaults.get("size"))
    seconds = _whole(request.get("seconds", facts.defaults.get("seconds")))
    most = facts.max_seconds if seconds is None else seconds
    video, max_input_s = facts.input_video, 0
    if video is not None and (count := sum(kind in video.types for kind in media_types(request))):
        max_input_s = count * video.each_s
        if video.together_s is not None:
            max_input_s = min(max_input_s, video.together_s)
        if video.with_output_s is not None:
            max_input_s = min(max_input_s, max(0, video.with_output_s - (seconds or 0)))
    return Billable(str(size).lower() if size is not None else None, seconds, most, max_input_s)


def quote(
    request: Mapping[str, Any], tables: Sequence[PriceTable], day: date, facts: PageFacts
) -> Quote | Unpriced:
    """
    Return what a request costs that is submitted on a day (UTC).

    Args:
        tables: The user's first: the first table with a row of the model decides.
    """
    model = request.get("model")
    table = next((table for table in tables if any(row.model == model for row in table.prices)), None)
    if table is None:
        return Unpriced(f"no table has a price of {model}")
    bill = billable(request, facts)
    rows = [row for row in table.prices if row.model == model]
    matching = [row for row in rows if row.holds_on(day) and _fits(row, request, facts)]
    if not matching:
        return Unpriced(_why_none(model, rows, day))
    sizes = (bill.size,) if bill.size is not None else facts.sizes or (None,)
    chosen = [_choose(matching, size) for size in sizes]
    known = [row for row in chosen if row is not None]
    if len(known) < len(chosen):
        size = next(size for size, row in zip(sizes, chosen, strict=True) if row is None)
        return Unpriced(f"the table has no price of {model} " + (f"in {size}" if size else "without a size"))
    # Without a size in the request and on the page, the most expensive one counts.
    prices = [row.price_of(size) or Decimal(0) for row, size in zip(known, sizes, strict=True)]
    rate = max(prices)
    row = known[prices.index(rate)]
    return _quote(row, rate, sizes[prices.index(rate)], bill, table, facts)


def _quote(
    row: Price, rate: Decimal, size: str | None, bill: Billable, table: PriceTable, facts: PageFacts
) -> Quote | Unpriced:
    in_size = f" in {size}" if size and row.price is None else ""
    per = f"{rate.normalize():f} {table.currency}"
    has_input = row.unit is Unit.SECOND and bill.max_input_s > 0
    match row.unit:
        case Unit.VIDEO:
            most = expected = Decimal(1)
            basis = f"{per} a video{in_size}"
        case Unit.MILLION_TOKENS:
            tokens = row.most_tokens if row.most_tokens is not None else facts.most_tokens
            if tokens is None:
                return Unpriced(f"the most tokens that {row.model} takes are not known (most_tokens)")
            most = expected = Decimal(tokens) / 10**6
            basis = f"at most {tokens:,} tokens at {per} a million{in_size}"
        case Unit.SECOND:
            if bill.max_seconds is None:
                return Unpriced(f"the longest video of {row.model} is not known")
            most = Decimal(bill.max_seconds + bill.max_input_s)
            if has_input and facts.input_video is not None and facts.input_video.with_output_s is not None:
                most = min(most, Decimal(max(facts.input_video.with_output_s, bill.max_seconds)))
            expected = Decimal(bill.max_seconds)
            at_most = "at most " if bill.seconds is None or has_input else ""
            basis = f"{at_most}{most:f} s at {per} a second{in_size}"
    if rate * most >= MAX_AMOUNT:
        return Unpriced(f"the price of {row.model} would be a billion or more")
    return Quote(
        currency=table.currency,
        unit=row.unit,
        rate=rate,
        highest=round_up(rate * most),
        expected=round_up(rate * expected),
        basis=basis + (f" ({row.note})" if row.note else ""),
        has_input=has_input,
    )


def utc_day(at: float) -> date:
    """
    Return the day in UTC of a time in seconds since 1970.

    >>> utc_day(1795996799.0)
    datetime.date(2026, 11, 29)
    """
    return _day(at // 86400)[0]


def utc_day_text(at: float) -> str:
    """Return `utc_day` as text."""
    return _day(at // 86400)[1]


def utc_day_and_text(at: float) -> tuple[date, str]:
    """Return `utc_day` as a date and as text."""
    return _day(at // 86400)


# Most times are of today.
@lru_cache(maxsize=16)
def _day(number: float) -> tuple[date, str]:
    day = date(1970, 1, 1) + timedelta(days=number)
    return day, day.isoformat()


def table_json(table: PriceTable) -> dict[str, Any]:
    """Return a table as a manifest has it; amounts are decimal text."""
    rows = []
    for row in table.prices:
        price: Any = {size: f"{price:f}" for size, price in row.sizes.items()}
        values = {
            "model": row.model,
            "unit": row.unit.value,
            "size": price or None,
            "price": None if row.price is None else f"{row.price:f}",
            "from": row.since and row.since.isoformat(),
            "until": row.until and row.until.isoformat(),
            "when": dict(row.when) or None,
            "most_tokens": row.most_tokens,
            "note": row.note or None,
        }
        rows.append({key: value for key, value in values.items() if value is not None})
    return {
        "version": 1,
        "checked": table.checked.isoformat(),
        "source": table.source,
        "currency": table.currency,
        "prices": rows,
    }


def media_types(request: Mapping[str, Any]) -> list[str]:
    """Return the types of a request's media items."""
    media = request.get("media")
    items = media if isinstance(media, list) else ()
    return [str(item["type"]) for item in items if isinstance(item, dict) and "type" in item]


def _fits(row: Price, request: Mapping[str, Any], facts: PageFacts) -> bool:
    """Return whether a request meets a row's conditions; an absent key counts as the page's default."""
    for key, wanted in row.when.items():
        if key == MEDIA:
            if wanted not in media_types(request):
                return False
        elif key == INPUT_VIDEO:
            if wanted is not any(kind in _VIDEO_TYPES for kind in media_types(request)):
                return False
        elif request.get(key, facts.defaults.get(key, False)) != wanted:
            return False
    return True


def _choose(rows: Iterable[Price], size: str | None) -> Price | None:
    """
    Choose the row with the most conditions; of those, one with a period over one without.

    What is still left to choose from is doubtful, so the highest price counts.
    """
    having = [row for row in rows if row.price_of(size) is not None]
    return max(
        having,
        key=lambda row: (len(row.when), row.since is not None or row.until is not None, row.price_of(size)),
        default=None,
    )


def _why_none(model: Any, rows: Sequence[Price], day: date) -> str:
    if not any(row.holds_on(day) for row in rows):
        ended = max((row.until for row in rows if row.until is not None and row.until < day), default=None)
        if ended is not None:
            return f"the price of {model} ended on {ended}"
        return f"the price of {model} begins later"
    return f"no price of {model} is for such a request (its conditions, under when)"


def _whole(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None
