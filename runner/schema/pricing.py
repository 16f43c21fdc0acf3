"""Prices of requests by price tables and by what the pages of their models say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import date
from typing import Any

from runner.core.model import Json
from runner.core.prices import (
    INPUT_VIDEO,
    MEDIA,
    Billable,
    InputVideo,
    PageFacts,
    PriceTable,
    Quote,
    Unpriced,
    billable,
    media_types,
    quote,
)
from runner.core.problem import Finding
from runner.schema.catalog import Catalog
from runner.schema.describe import allowed_values
from runner.schema.request_schema import RequestSchema

_MAX_KNOWN = 10_000


class Pricer:
    """
    Says what requests cost.

    Args:
        tables: The user's own first.
        catalog: With the user's own schemas.
    """

    def __init__(self, tables: Sequence[PriceTable], catalog: Catalog) -> None:
        self.tables = tuple(tables)
        self._tables_by_model = {model: table for table in reversed(self.tables) for model in table.models()}
        self._catalog = catalog
        self._facts: dict[tuple[str, str], PageFacts] = {}
        self._known: dict[Hashable, tuple[Billable, Quote | Unpriced]] = {}
        conditions = {key for table in tables for row in table.prices for key in row.when}
        self._keys = ("model", "size", "seconds", *sorted(conditions - {MEDIA, INPUT_VIDEO}))

    def price(self, request: Mapping[str, Json], day: date) -> tuple[Billable, Quote | Unpriced]:
        """Return what a request is billed for, and what it costs if it is submitted on a day (UTC)."""
        schema = self._catalog.select(request)
        name = None if isinstance(schema, Finding) else schema.name
        # Most of a batch differs in what does not matter to the price, which takes longer than this lookup.
        key: Hashable = (day, name, *map(request.get, self._keys), *media_types(request))
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

    def table_of(self, model: str) -> PriceTable | None:
        """Return the table that decides on a model, or None."""
        return self._tables_by_model.get(model)


def page_facts(schema: RequestSchema, model: str) -> PageFacts:
    """
    Return what a schema says of one of its models.

    >>> from runner.schema.catalog import load_catalog
    >>> facts = page_facts(load_catalog().schema("seedance-1"), "seedance-1-5-pro-251215")
    >>> facts.defaults["size"], facts.defaults["seconds"], facts.most_seconds
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
        most_seconds=max((int(text) for text in seconds if text.isdecimal()), default=None),
        sizes=tuple(str(size).lower() for size in _listed(document, "size", model)),
        most_tokens=billing.get("most_tokens"),
        input_video=None if video is None else InputVideo(**{**video, "types": tuple(video["types"])}),
    )


def _listed(document: dict[str, Any], name: str, model: str) -> tuple[Any, ...]:
    """Return the values that a page lists for a key; none if it has no list."""
    if "enum" not in document.get("properties", {}).get(name, {}):
        return ()
    return allowed_values(document, name, model)
