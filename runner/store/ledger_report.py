"""Queries of the ledger: sums by day, model, run, or a key of the jobs' metadata."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from runner.core.cost import Spend
from runner.errors import UsageError
from runner.store.ledger import Ledger

_BLOCK = 2000
"""Jobs whose entries are added up at once."""


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
        raise UsageError(
            f"there is no ledger at {path}; only runs with a budget write one",
            hint="name one: runner spend LEDGER",
        )
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
    spends: dict[tuple[str, str], dict[str, int]] = {}
    attempts: Counter[tuple[str, str]] = Counter()
    with ledger.reading() as connection:
        if key.startswith("tag:"):
            found: Iterable[_Sum] = _sums_by_tag(connection, key.removeprefix("tag:"), since)
        else:
            name = {"day": "day", "model": "model", "run": "runs.name"}[key]
            found = connection.execute(
                f"SELECT {name}, currency, state, sum(attempts), sum(amount) FROM totals JOIN kinds USING (kind) "
                "JOIN runs USING (run) WHERE day >= ? GROUP BY 1, 2, 3 ORDER BY 1, 2",
                (since,),
            )
        for label, currency, state, number, amount in found:
            where = str(label), currency
            spend = spends.setdefault(where, {})
            spend[state] = spend.get(state, 0) + amount
            attempts[where] += number
    return [
        SpentBy(label, attempts[label, currency], Spend(currency=currency, **by_state))
        for (label, currency), by_state in spends.items()
        if attempts[label, currency]
    ]


_Sum = tuple[str | float, str, str, int, int]


def _sums_by_tag(connection: sqlite3.Connection, name: str, since: str) -> list[_Sum]:
    """Add up entries by a tag, currency and state: block by block, since SQLite sorts what it groups."""
    # One snapshot, whatever runs write meanwhile.
    connection.execute("BEGIN")
    kinds = dict(connection.execute("SELECT kind, currency FROM kinds WHERE day >= ?", (since,)))
    sums: defaultdict[tuple[str | float, str, str], list[int]] = defaultdict(lambda: [0, 0])
    runs = connection.execute("SELECT run, (SELECT max(seq) FROM entries e WHERE e.run = r.run) FROM runs r")
    for run, last in runs.fetchall():
        for start in range(0, 0 if last is None else last + 1, _BLOCK):
            for kind, state, label, number, amount in connection.execute(
                "SELECT kind, state, json_extract(tags, ?) AS label, count(*), sum(amount) FROM entries "
                "WHERE run = ? AND seq >= ? AND seq < ? GROUP BY kind, state, label",
                (f"$.{json.dumps(name)}", run, start, start + _BLOCK),
            ):
                if kind in kinds:
                    total = sums["" if label is None else label, kinds[kind], state]
                    total[0] += number
                    total[1] += amount
    connection.execute("COMMIT")
    found = [(*key, number, amount) for key, (number, amount) in sums.items()]
    return sorted(found, key=lambda row: (isinstance(row[0], str), row[0], row[1]))
