"""
What the runs that share a ledger have spent, and how much of its budgets a run has left; nothing is written.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path

from msgspec import Struct

from runner.api.run_facts import output_root
from runner.api.run_ledger import LEDGER_NAME, SIMULATED_LEDGER_NAME, ledger_path
from runner.core.cost import Spend
from runner.core.model import Json
from runner.core.money import Money, amount_text, from_nanos, nanos_text
from runner.core.prices import utc_day
from runner.core.settings import Settings
from runner.store import costs
from runner.store.ledger import Ledger
from runner.store.ledger_report import SpentBy, held, open_to_read, spent_by


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
