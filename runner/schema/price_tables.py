"""Read price tables, and price requests by them and by what the pages of their models say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from itertools import combinations
from typing import Any

from msgspec import Struct

from runner.core.model import Json
from runner.core.money import parse_amount
from runner.core.prices import (
    INPUT_VIDEO,
    MEDIA,
    OLD_AFTER_DAYS,
    Billable,
    InputVideo,
    PageFacts,
    Price,
    PriceTable,
    Quote,
    Unit,
    Unpriced,
    billable,
    media_types,
    quote,
)
from runner.core.problem import Finding, JsonPath, Severity, format_path
from runner.core.settings import Settings
from runner.schema.catalog import Catalog, catalog_with, load_catalog
from runner.schema.limits import allowed_values
from runner.schema.request_schema import RequestSchema, ValueSchema

_MAX_KNOWN = 10_000


class Pricer:
    """
    Says what requests cost.

    Args:
        tables: The user's own first.
        catalog: With the user's own schemas.

    Attributes:
        tables_by_model: The table that decides on each model.
    """

    def __init__(self, tables: Sequence[PriceTable], catalog: Catalog) -> None:
        self.tables = tuple(tables)
        self.tables_by_model = {row.model: table for table in reversed(self.tables) for row in table.prices}
        self._catalog = catalog
        self._facts: dict[tuple[str, str], PageFacts] = {}
        self._known: dict[Hashable, tuple[Billable, Quote | Unpriced]] = {}
        conditions = {key for table in tables for row in table.prices for key in row.when}
        self._keys = ("model", "size", "seconds", *sorted(conditions - {MEDIA, INPUT_VIDEO}))

    def price(self, request: Mapping[str, Json], day: date) -> tuple[Billable, Quote | Unpriced]:
        """Return what a request is billed for, and what it costs if it is submitted on a day (UTC)."""
        # Most of a batch differs in what does not matter to the price, which takes longer than this lookup. Which
        # keys a request has decides on its schema.
        media = media_types(request) if MEDIA in request else ()
        key: Hashable = (day, tuple(request), *map(request.get, self._keys), *media)
        try:
            if (known := self._known.get(key)) is not None:
                return known
        except TypeError:
            # An unchecked request may have anything for a size.
            key = None
        facts = self.facts(request)
        found = billable(request, facts), quote(request, self.tables, day, facts)
        if key is not None and len(self._known) < _MAX_KNOWN:
            self._known[key] = found
        return found

    def quote(self, request: Mapping[str, Json], day: date) -> Quote | Unpriced:
        """Return what a request costs that is submitted on a day (UTC)."""
        return self.price(request, day)[1]

    def facts(self, request: Mapping[str, Json]) -> PageFacts:
        """Return what the page of a request's model and form says; nothing if no schema knows the model."""
        schema = self._catalog.select(request)
        if isinstance(schema, Finding):
            return PageFacts()
        key = schema.name, str(request["model"])
        if key not in self._facts:
            self._facts[key] = page_facts(schema, key[1])
        return self._facts[key]


def pricer_for(settings: Settings) -> Pricer:
    """Return what says the prices of a run's requests: the user's own table, then the one that comes with the program."""
    catalog = catalog_with(settings.schemas) if settings.schemas else load_catalog()
    shipped = shipped_prices()
    return Pricer((shipped,) if settings.prices is None else (settings.prices, shipped), catalog)


def page_facts(schema: RequestSchema, model: str) -> PageFacts:
    """
    Return what a schema says of one of its models.

    >>> from runner.schema.catalog import load_catalog
    >>> facts = page_facts(load_catalog().schema("seedance-1"), "seedance-1-5-pro-251215")
    >>> facts.defaults["size"], facts.defaults["seconds"], facts.max_seconds
    ('720p', '5', 12)
    """
    document = schema.document
    properties: Mapping[str, Any] = document.get("properties", {})
    billing = document.get("x-billing", {})
    defaults = {name: rules["default"] for name, rules in properties.items() if "default" in rules}
    defaults |= billing.get("defaults", {}).get(model, {})
    seconds = [str(value) for value in _listed(document, "seconds", model)]
    video = billing.get("input_video")
    return PageFacts(
        defaults=defaults,
        max_seconds=max((int(text) for text in seconds if text.isdecimal()), default=None),
        sizes=tuple(str(size).lower() for size in _listed(document, "size", model)),
        most_tokens=billing.get("most_tokens"),
        input_video=None if video is None else InputVideo(**{**video, "types": tuple(video["types"])}),
    )


def _listed(document: dict[str, Any], name: str, model: str) -> tuple[Any, ...]:
    """Return the values that a page lists for a key; none if it has no list."""
    if "enum" not in document.get("properties", {}).get(name, {}):
        return ()
    return allowed_values(document, name, model)


@cache
def shipped_prices() -> PriceTable:
    """Read the table that comes with the program, once; it is valid, which the tests make sure of."""
    return _Reader((), Decimal).table(
        json.loads((load_catalog().folder / "sources" / "prices.json").read_bytes())
    )


def read_price_table(
    value: Json, today: date | None, *, path: JsonPath = ()
) -> tuple[PriceTable | None, list[Finding]]:
    """
    Read a price table; None if it has errors.

    Args:
        today: In UTC; a table that was last checked long ago gets a warning. None for no such warnings.
        path: Where the table is in its file.
    """
    schema = ValueSchema(load_catalog().document("prices"), format_path(path) or "the price table")
    findings = [
        Finding((*path, *each.path), each.message, each.hint, each.severity)
        for each in schema.findings(value)
    ]
    if findings:
        return None, findings
    reader = _Reader(path)
    table = reader.table(value)
    findings = reader.findings or [*_overlaps(table.prices, path)]
    if findings:
        return None, findings
    return table, [] if today is None else list(_age_findings(table, today, path))


class _Reader(Struct):
    """Converts a table that fits its schema, and collects what the schema can't express."""

    path: JsonPath
    parse: Callable[[str], Decimal] = parse_amount
    findings: list[Finding] = []

    def table(self, value: Mapping[str, Any]) -> PriceTable:
        """Return the table; amounts and dates that are wrong are left out."""
        return PriceTable(
            checked=self._date(value["checked"], (*self.path, "checked")) or date.min,
            source=value.get("source", ""),
            currency=value["currency"],
            prices=tuple(self._row(row, (*self.path, "prices", n)) for n, row in enumerate(value["prices"])),
        )

    def _row(self, row: Mapping[str, Any], path: JsonPath) -> Price:
        sizes = {}
        for name, amount in row.get("size", {}).items():
            sizes[name.lower()] = self._amount(amount, (*path, "size", name)) or Decimal(0)
        if len(sizes) < len(row.get("size", {})):
            self._add((*path, "size"), "two sizes differ only in their letter case")
        since, until = (
            self._date(row[key], (*path, key)) if key in row else None for key in ("from", "until")
        )
        if since is not None and until is not None and until < since:
            self._add((*path, "until"), f"the period ends on {until}, before it begins on {since}")
        if row["unit"] != Unit.MILLION_TOKENS and "most_tokens" in row:
            self._add((*path, "most_tokens"), "most_tokens is for the unit million_tokens")
        return Price(
            model=row["model"],
            unit=Unit(row["unit"]),
            price=self._amount(row["price"], (*path, "price")) if "price" in row else None,
            sizes=sizes,
            since=since,
            until=until,
            when=row.get("when", {}),
            note=row.get("note", ""),
            most_tokens=row.get("most_tokens"),
        )

    def _amount(self, value: float | str, path: JsonPath) -> Decimal | None:
        # The shortest digits that make a float are those that a person wrote.
        is_number = isinstance(value, float) and math.isfinite(value)
        text = f"{Decimal(repr(value)):f}" if is_number else str(value)
        try:
            return self.parse(text)
        except ValueError as error:
            self._add(path, str(error))
            return None

    def _date(self, text: str, path: JsonPath) -> date | None:
        try:
            return date.fromisoformat(text)
        except ValueError:
            self._add(path, f"there is no day {text}")
            return None

    def _add(self, path: JsonPath, message: str) -> None:
        self.findings.append(Finding(path, f"{format_path(path)}: {message}"))


def _overlaps(rows: tuple[Price, ...], path: JsonPath) -> Iterator[Finding]:
    """Find rows of which nobody could say which one holds: the same model, size and conditions at one time."""
    by_model: dict[str, list[tuple[int, Price]]] = {}
    for index, row in enumerate(rows):
        by_model.setdefault(row.model, []).append((index, row))
    for (first_index, first), (index, row) in (
        pair for group in by_model.values() for pair in combinations(group, 2)
    ):
        sizes = first.sizes.keys() & row.sizes.keys()
        is_same = first.when == row.when and (sizes or first.price is not None or row.price is not None)
        if not is_same or _has_period(first) != _has_period(row):
            continue
        starts, ends = max(first.since or date.min, row.since or date.min), _first_end(first, row)
        if starts <= ends:
            what = f"{row.model} {', '.join(sorted(sizes))}".rstrip()
            where = (*path, "prices", index)
            yield Finding(
                where,
                f"{format_path(where)}: {what} has a price already in row {first_index + 1}, in a period that overlaps",
                "give one of them another period with from and until, or conditions with when",
            )


def _has_period(row: Price) -> bool:
    return row.since is not None or row.until is not None


def _first_end(first: Price, second: Price) -> date:
    return min(first.until or date.max, second.until or date.max)


def _age_findings(table: PriceTable, today: date, path: JsonPath) -> Iterator[Finding]:
    days = table.age_days(today)
    if days > OLD_AFTER_DAYS:
        message = f"the prices were last checked on {table.checked}, {days} days ago"
        hint = "compare them with their source, and set checked to today"
        yield Finding((*path, "checked"), message, hint, Severity.WARNING)
    elif days < -1:
        message = f"the prices were checked on {table.checked}, which is in the future"
        yield Finding((*path, "checked"), message, None, Severity.WARNING)
    for row in table.prices:
        if row.until is not None and row.until < today and not _has_other(table, row, today):
            message = f"the price of {row.model} ended on {row.until}, so it is unknown now"
            yield Finding((*path, "prices"), message, "add its price from then on", Severity.WARNING)


def _has_other(table: PriceTable, row: Price, today: date) -> bool:
    return any(other.model == row.model and other.holds_on(today) for other in table.prices)
