"""What people ask the ledger: sums by day, model, run, or a key of the jobs' metadata."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from runner.core.cost import Spend
from runner.errors import UsageError
from runner.store.ledger import Ledger


class SpentBy(Struct, frozen=True):
    """What was spent under one name of a key, such as a day."""

    name: str
    attempts: int
    spend: Spend


def open_to_read(path: Path) -> closing[Ledger]:
    """
    Open a ledger to read it, even while runs write it.

    Raises:
        UsageError: It does not exist.
        LedgerError: It can't be read.
    """
    if not path.exists():
        raise UsageError(f"there is no ledger at {path}", hint="name one: runner spend LEDGER")
    return closing(Ledger(path, is_read_only=True))


def held(ledger: Ledger) -> dict[str, int]:
    """Return what runs hold for jobs that they have not submitted yet, by currency."""
    with ledger.reading() as connection:
        return dict(connection.execute("SELECT currency, sum(amount) FROM allowances GROUP BY 1").fetchall())


def spent_by(ledger: Ledger, key: str, *, since: str = "") -> list[SpentBy]:
    """
    Add up what was spent, by currency.

    Args:
        key: ``day``, ``model``, ``run``, or ``tag:NAME`` for a key of the metadata.
        since: The first day, as text.
    """
    values: tuple[str, ...] = (since,)
    if key.startswith("tag:"):
        name, table, count = "coalesce(json_extract(tags, ?2), '')", "entries", "count(*)"
        values = (since, f"$.{json.dumps(key.removeprefix('tag:'))}")
    else:
        name = {"day": "day", "model": "model", "run": "runs.name"}[key]
        table, count = "totals", "sum(attempts)"
    found: dict[tuple[str, str], dict[str, int]] = {}
    attempts: dict[tuple[str, str], int] = {}
    with ledger.reading() as connection:
        for label, currency, state, number, amount in connection.execute(
            f"SELECT {name}, currency, state, {count}, sum(amount) FROM {table} JOIN kinds USING (kind) "
            "JOIN runs USING (run) WHERE day >= ?1 GROUP BY 1, 2, 3 ORDER BY 1, 2",
            values,
        ):
            where = str(label), currency
            found.setdefault(where, {})[state] = amount
            attempts[where] = attempts.get(where, 0) + number
    return [
        SpentBy(label, attempts[label, currency], Spend(currency=currency, **by_state))
        for (label, currency), by_state in found.items()
        if attempts[label, currency]
    ]
