"""The prices that are in force, with their age, and the models whose price is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from runner.api.validate import manifest_error
from runner.core.estimate import CostEstimate
from runner.core.model import Json
from runner.core.money import amount_text
from runner.core.prices import OLD_AFTER_DAYS, Price, PriceTable, Unit
from runner.core.settings import Settings
from runner.manifest.loader import ProblemCollector, load
from runner.schema.catalog import load_catalog
from runner.schema.price_tables import Pricer, pricer_for


class PriceInForce(Struct, frozen=True):
    """
    A price that holds today.

    Attributes:
        size: In lower case; None for every size.
        is_own: Whether it is of the user's own table.
    """

    model: str
    size: str | None
    unit: Unit
    price: Decimal
    currency: str
    row: Price
    is_own: bool


class PricesInForce(Struct, frozen=True):
    """
    The price tables in use, the user's own first, and what they say today.

    Attributes:
        unknown: Models of which no price holds today, each with the sizes without a price; none for all sizes.
    """

    tables: tuple[PriceTable, ...]
    has_own: bool
    prices: tuple[PriceInForce, ...]
    unknown: Mapping[str, tuple[str, ...]]


def tables_used(pricer: Pricer, cost: CostEstimate) -> tuple[PriceTable, ...]:
    """Return the tables that decided on the models of an estimate."""
    deciding = [pricer.tables_by_model.get(units.model) for units in cost.units]
    return tuple(table for table in pricer.tables if any(table is each for each in deciding))


def cost_json(cost: CostEstimate) -> dict[str, Json]:
    """Return an estimate as `plan --json` shows it; amounts are decimal text."""
    return {
        "billable": [
            {
                "model": units.model,
                "size": units.size,
                "clips": units.clips,
                "seconds": units.seconds,
                "open_ended": units.open_ended,
            }
            for units in cost.units
        ],
        "sums": [
            {
                "currency": each.currency,
                "jobs": each.jobs,
                "expected": amount_text(each.expected),
                "highest": amount_text(each.highest),
            }
            for each in cost.sums
        ],
        "unknown": dict(cost.unknown),
    }


def prices(manifest: Path | None = None, *, today: date | None = None) -> PricesInForce:
    """
    Return the prices that hold today (UTC).

    Args:
        manifest: Whose own price table counts before the one that comes with the program.

    Raises:
        ManifestError: The manifest, or its price table, has errors.
    """
    today = today or datetime.now(UTC).date()
    settings = Settings(name="")
    if manifest is not None:
        problems = ProblemCollector(None)
        loaded = load(manifest, problems, variables={}, today=today)
        if problems.errors:
            raise manifest_error(loaded, problems)
        settings = loaded.header.settings
    pricer = pricer_for(settings)
    catalog = load_catalog()
    models = sorted({*catalog.models, *(row.model for table in pricer.tables for row in table.prices)})
    found = {model: tuple(_in_force(pricer, model, today, settings.prices)) for model in models}
    unknown = {}
    for model in models:
        priced = {each.size for each in found[model]}
        missing = (
            ()
            if None in priced
            else tuple(size for size in pricer.facts({"model": model}).sizes if size not in priced)
        )
        if missing or not priced:
            unknown[model] = missing if priced else ()
    return PricesInForce(
        pricer.tables,
        settings.prices is not None,
        tuple(each for model in models for each in found[model]),
        unknown,
    )


def _in_force(pricer: Pricer, model: str, today: date, own: PriceTable | None) -> Iterator[PriceInForce]:
    """Yield the prices of one model; a row with a period replaces one without for the same size and conditions."""
    table = pricer.tables_by_model.get(model)
    if table is None:
        return
    rows = [row for row in table.prices if row.model == model and row.holds_on(today)]
    dated = [row for row in rows if row.since is not None or row.until is not None]
    for row in rows:
        prices = list(row.sizes.items()) if row.price is None else [(None, row.price)]
        for size, price in prices:
            is_replaced = row not in dated and any(
                other.when == row.when and other.price_of(size) is not None for other in dated
            )
            if not is_replaced:
                yield PriceInForce(model, size, row.unit, price, table.currency, row, table is own)


def prices_json(found: PricesInForce, *, today: date) -> dict[str, Json]:
    """Return what `runner prices --json` prints; amounts are decimal text."""
    return {
        "tables": [
            {
                "source": table.source,
                "currency": table.currency,
                "checked": table.checked.isoformat(),
                "age_days": table.age_days(today),
                "is_old": table.age_days(today) > OLD_AFTER_DAYS,
                "own": found.has_own and index == 0,
            }
            for index, table in enumerate(found.tables)
        ],
        "prices": [
            {
                "model": each.model,
                "size": each.size,
                "unit": each.unit,
                "price": amount_text(each.price),
                "currency": each.currency,
                "from": each.row.since.isoformat() if each.row.since else None,
                "until": each.row.until.isoformat() if each.row.until else None,
                "when": dict(each.row.when),
                "note": each.row.note or None,
                "own": each.is_own,
            }
            for each in found.prices
        ],
        "unknown": [{"model": model, "sizes": list(sizes)} for model, sizes in found.unknown.items()],
    }
