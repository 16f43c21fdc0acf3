"""What the runs that share a ledger have spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from msgspec import Struct

from runner.api.run_facts import output_root
from runner.api.run_ledger import LEDGER_NAME, SIMULATED_LEDGER_NAME
from runner.core.cost import Spend
from runner.core.model import Json
from runner.core.money import nanos_text
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
