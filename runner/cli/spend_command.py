"""`runner spend`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import click

from runner.api.spend import SpendReport, spend, spend_json
from runner.cli.console import echo_stderr
from runner.core.money import format_money, from_nanos
from runner.core.sanitize import sanitize_line
from runner.core.units import format_count

_KEYS = ("model", "day", "run")


def _key(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value in _KEYS or (value.startswith("tag:") and len(value) > 4):
        return value
    raise click.BadParameter(f"{value!r} is not one of {', '.join(_KEYS)} and tag:KEY")


def _day(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day; write it as 2026-11-26") from None


@click.command("spend")
@click.argument("ledger", required=False, type=click.Path(path_type=Path))
@click.option(
    "--by", "key", metavar="model|day|run|tag:KEY", default="day", show_default=True, callback=_key,
    help="What to add up by; tag:KEY is a key of the jobs' metadata.",
)  # fmt: skip
@click.option(
    "--since", metavar="DATE", callback=_day, help="Only from this day (UTC) on, such as 2026-11-01."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ledger: Path | None, key: str, since: date | None, as_json: bool) -> None:
    """
    Show what the runs that share LEDGER have spent; by default output/spend.db, found as run directories are.

    Safe to use while runs are active.
    """
    found = spend(ledger, key=key, since=since)
    if as_json:
        click.echo(json.dumps(spend_json(found), indent=2, ensure_ascii=False))
        return
    if ledger is None:
        echo_stderr(str(found.path))
    for line in _lines(found):
        click.echo(line)


def _lines(found: SpendReport) -> Iterator[str]:
    for each in found.rows:
        name = sanitize_line(each.name or "(none)", max_chars=80)
        yield f"  {name:<34} {format_count(each.attempts, 'attempt'):>16}  {each.spend}"
    if not found.rows:
        yield "nothing was spent"
    for total in found.totals:
        yield f"{total}"
    for currency, amount in found.held.items():
        yield f"held by runs for jobs that they have not submitted: {format_money(from_nanos(amount), currency)}"
