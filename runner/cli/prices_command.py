"""`runner prices`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import click

from runner.api.prices import PriceInForce, PricesInForce, prices, prices_json
from runner.cli.param_types import MANIFEST
from runner.core.prices import age_text
from runner.core.sanitize import sanitize_line

_UNITS = {"second": "a second", "video": "a video", "million_tokens": "a million tokens"}


@click.command("prices")
@click.argument("manifest", required=False, type=MANIFEST)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(manifest: Path | None, as_json: bool) -> None:
    """
    Show the prices that hold today, their age, and the models whose price is unknown.

    With MANIFEST, its own price table counts first.
    """
    today = datetime.now(UTC).date()
    found = prices(manifest, today=today)
    if as_json:
        click.echo(json.dumps(prices_json(found, today=today), indent=2, ensure_ascii=False))
        return
    for line in _lines(found, today):
        click.echo(line)


def _lines(found: PricesInForce, today: date) -> Iterator[str]:
    for table in found.tables:
        age = age_text(table.age_days(today))
        yield f"prices in {table.currency} from {sanitize_line(table.source or 'a table', max_chars=200)}, {age}"
    row = "  {:<34} {:<8} {:>12} {}".format
    yield ""
    yield row("model", "size", "price", "for")
    for each in found.prices:
        price = f"{each.price.normalize():f} {each.currency}"
        name = sanitize_line(each.model, max_chars=100)
        yield row(name, each.size or "any", price, f"{_UNITS[each.unit]}{_conditions(each)}")
    if found.unknown:
        yield ""
        yield "unknown:"
        for model, sizes in found.unknown.items():
            yield f"  {model}" + (f" in {', '.join(sizes)}" if sizes else "")


def _conditions(each: PriceInForce) -> str:
    row = each.row
    parts = [f"{key}: {json.dumps(value)}" for key, value in row.when.items()]
    parts += [f"until {row.until}"] if row.until else []
    parts += [row.note] if row.note else []
    return f" ({', '.join(parts)})" if parts else ""
