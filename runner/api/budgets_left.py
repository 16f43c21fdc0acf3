"""How much of its budgets a run has left; nothing is written."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from runner.api.run_ledger import ledger_path
from runner.core.model import Json
from runner.core.money import Money, amount_text, from_nanos
from runner.core.prices import utc_day
from runner.core.settings import Settings
from runner.store import costs
from runner.store.ledger import Ledger


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
