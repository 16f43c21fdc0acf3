"""
The ledger of a run's budgets: where it is, how it learns what ``run.db`` has, what is spent, and what is left.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runner.api.run_facts import output_root
from runner.core.cost import Spend
from runner.core.model import Json
from runner.core.money import Money, amount_text, from_nanos, nanos_text
from runner.core.prices import utc_day
from runner.core.settings import Budget, Settings
from runner.engine.allowance import RunLedger
from runner.jsontext import loads
from runner.store import costs, query
from runner.store.ledger import Ledger
from runner.store.ledger_report import SpentBy, held, open_to_read, spent_by
from runner.store.lock import is_copy
from runner.store.store import Store

if TYPE_CHECKING:
    from runner.engine.governor_client import GovernorClient


LEDGER_NAME = "spend.db"
SIMULATED_LEDGER_NAME = "spend-simulated.db"
TOKEN = "ledger_token"  # noqa: S105
"""The key in `meta` of the run's name in the ledger."""
REPLACED = "ledger_replaced"
"""The key in `meta` of the names of the shards that a run was merged from, a JSON array, until the ledger knows."""


def with_ledger(budget: Budget, folder: Path | None, *, simulate: bool) -> Budget:
    """
    Return a budget with the path of its ledger.

    Args:
        folder: Where run directories are, in its folder ``output``; None if that is another one on each machine, so that
            the path remains relative to it.
    """
    path = Path(budget.ledger or f"output/{LEDGER_NAME}")
    if simulate:
        path = path.with_name(
            SIMULATED_LEDGER_NAME if path.name == LEDGER_NAME else f"{path.stem}-simulated{path.suffix}"
        )
    if folder is not None:
        path = (folder / path).resolve()
    return replace(budget, ledger=str(path))


def ledger_path(budget: Budget, run_dir: Path) -> Path:
    """Return the path of a budget's ledger on this machine; that of a prepared run depends on where it is worked on."""
    parent = run_dir.absolute().parent
    folder = parent.parent if parent.name == "output" else output_root(Path.cwd() / "manifest")
    return folder / (budget.ledger or f"output/{LEDGER_NAME}")


def open_ledger(budget: Budget, run_dir: Path, governor: GovernorClient | None) -> RunLedger | None:
    """
    Return the ledger of a run's budget, which is the governor's if there is one.

    Raises:
        LedgerError: It can't be used.
    """
    return Ledger(ledger_path(budget, run_dir)) if governor is None else governor.ledger


def settle_ledger(store: Store, settings: Settings, governor: GovernorClient | None = None) -> None:
    """
    Bring the ledger up to date with a run that has nothing to do, if a process of it died, or people changed it.

    Raises:
        LedgerError: The ledger can't be used.
    """
    if settings.budget is None or query.meta(store.reader).keys().isdisjoint((TOKEN, REPLACED)):
        return
    if is_copy(store.reader):
        # What it has is in the ledger as the other directory's.
        return
    if (ledger := open_ledger(settings.budget, store.run_dir, governor)) is None:
        return
    with closing(ledger):
        ledger.close_run(register(ledger, store, settings), [])


def register(ledger: RunLedger, store: Store, settings: Settings) -> int:
    """
    Register that this process works on a run, make sure that the ledger has all of it, and return the run's key.

    Raises:
        LedgerError: The ledger can't be used.
    """
    meta = query.meta(store.reader)
    token = meta.get(TOKEN)
    if token is None:
        token = uuid.uuid4().hex
        with store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (TOKEN, token))
    replaced = loads(meta.get(REPLACED, "[]"))
    run, is_due = ledger.open_run(token, settings.name, str(store.run_dir.resolve()))
    if is_due or replaced or costs.LEDGER_DUE in meta:
        ledger.sync_run(run, costs.entries(store.reader), replaced=replaced)
        with store.transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (costs.LEDGER_DUE, REPLACED))
    return run


class SpendReport(Struct, frozen=True):
    """
    Sums of a ledger.

    Attributes:
        key: What they are by: ``day``, ``model``, ``run`` or ``tag:KEY``.
        totals: Of all rows, by currency.
        held: What runs hold for jobs that they have not submitted yet, by currency, in billionths.
    """

    path: Path
    key: str
    rows: Sequence[SpentBy]
    totals: Sequence[Spend]
    held: Mapping[str, int]


def default_ledger() -> Path:
    """Return the ledger of the runs that belong to the working directory; that of simulated ones if there is no other."""
    folder = output_root(Path.cwd() / "manifest") / "output"
    simulated = folder / SIMULATED_LEDGER_NAME
    return simulated if simulated.exists() and not (folder / LEDGER_NAME).exists() else folder / LEDGER_NAME


def spend(ledger: Path | None = None, *, key: str = "day", since: date | None = None) -> SpendReport:
    """
    Add up what was spent.

    Args:
        ledger: None for `default_ledger`.
        key: ``day``, ``model``, ``run`` or ``tag:KEY``.
        since: The first day (UTC); None for all.

    Raises:
        LedgerError: There is no ledger, or it can't be read.
    """
    path = ledger or default_ledger()
    with open_to_read(path) as opened:
        rows = spent_by(opened, key, since="" if since is None else since.isoformat())
        return SpendReport(path, key, rows, _totals(rows), held(opened))


def _totals(rows: Sequence[SpentBy]) -> list[Spend]:
    sums: dict[str, Spend] = {}
    for row in rows:
        currency = row.spend.currency
        sums[currency] = sums.get(currency, Spend(currency=currency)) + row.spend
    return list(sums.values())


def spend_json(found: SpendReport) -> dict[str, Json]:
    """Return what `runner spend --json` prints; amounts are decimal text."""
    return {
        "ledger": str(found.path),
        "by": found.key,
        "rows": [{found.key: row.name, "attempts": row.attempts, **row.spend.json()} for row in found.rows],
        "totals": [total.json() for total in found.totals],
        "held": {currency: nanos_text(amount) for currency, amount in found.held.items()},
    }


class BudgetLeft(Struct, frozen=True):
    """One budget, what counts against it, and what is left."""

    name: str
    limit: Money
    used: Money

    @property
    def left(self) -> Money:
        """What may still be reserved."""
        return (
            self.limit - self.used
            if self.used <= self.limit
            else Money(self.limit.amount * 0, self.limit.currency)
        )

    def __str__(self) -> str:
        """Return the budget for people: its limit, and what is left."""
        return f"budget.{self.name}: {self.left} of {self.limit} left"


def budgets_left(settings: Settings, reader: sqlite3.Connection, run_dir: Path) -> tuple[BudgetLeft, ...]:
    """
    Return how much of each budget is left; the ledger is only read, and may not exist yet.

    Raises:
        LedgerError: The ledger can't be read.
    """
    budget = settings.budget
    if budget is None:
        return ()
    today, found = utc_day(time.time()).isoformat(), []
    if budget.run is not None:
        used = sum(
            each.spent + each.reserved for each in costs.spend(reader) if each.currency == budget.run.currency
        )
        found.append(BudgetLeft("run", budget.run, Money(from_nanos(used), budget.run.currency)))
    for name, limit, period in (("day", budget.day, today), ("month", budget.month, today[:7])):
        if limit is not None:
            path = ledger_path(budget, run_dir)
            found.append(BudgetLeft(name, limit, _used(path, limit.currency, period)))
    return tuple(found)


def _used(path: Path, currency: str, period: str) -> Money:
    if not path.is_file():
        return Money(from_nanos(0), currency)
    with closing(Ledger(path, is_read_only=True)) as ledger:
        return Money(from_nanos(ledger.used(currency, period)), currency)


def budgets_json(budgets: Iterable[BudgetLeft]) -> dict[str, Json]:
    """Return each budget by its name; amounts are decimal text."""
    return {
        budget.name: {
            "limit": amount_text(budget.limit.amount),
            "used": amount_text(budget.used.amount),
            "left": amount_text(budget.left.amount),
            "currency": budget.limit.currency,
        }
        for budget in budgets
    }
