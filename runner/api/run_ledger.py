"""Where the ledger of a run's budget is, and how the ledger learns what ``run.db`` has."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from runner import jsontext
from runner.api.run_facts import output_root
from runner.core.settings import Budget, Settings
from runner.engine.allowance import RunLedger
from runner.store import costs
from runner.store.ledger import Ledger
from runner.store.lock import is_copy
from runner.store.store import Store

if TYPE_CHECKING:
    from runner.engine.leased_governor import LeasedGovernor

LEDGER_NAME = "spend.db"
SIMULATED_LEDGER_NAME = "spend-simulated.db"
TOKEN = "ledger_token"  # noqa: S105
"""The key in `meta` of the run's name in the ledger."""
REPLACED = "ledger_replaced"
"""The key in `meta` of the names of the shards that a run was merged from, a JSON array, until the ledger knows."""


def with_ledger(settings: Settings, folder: Path | None, *, simulate: bool) -> Settings:
    """
    Return the settings with the path of the budget's ledger.

    Args:
        folder: Where run directories are, in its folder ``output``; None if that is another one on each machine, so that
            the path remains relative to it.
    """
    budget = settings.budget
    if budget is None:
        return settings
    path = Path(budget.ledger or f"output/{LEDGER_NAME}")
    if simulate:
        path = path.with_name(
            SIMULATED_LEDGER_NAME if path.name == LEDGER_NAME else f"{path.stem}-simulated{path.suffix}"
        )
    if folder is not None:
        path = (folder / path).resolve()
    return replace(settings, budget=replace(budget, ledger=str(path)))


def ledger_path(budget: Budget, run_dir: Path) -> Path:
    """Return the path of a budget's ledger on this machine; that of a prepared run depends on where it is worked on."""
    parent = run_dir.absolute().parent
    folder = parent.parent if parent.name == "output" else output_root(Path.cwd() / "manifest")
    return folder / (budget.ledger or f"output/{LEDGER_NAME}")


def open_ledger(settings: Settings, run_dir: Path, governor: LeasedGovernor | None) -> RunLedger | None:
    """
    Return the ledger of a run's budget, which is the governor's if there is one; None without a budget.

    Raises:
        LedgerError: It can't be used.
    """
    if settings.budget is None:
        return None
    return Ledger(ledger_path(settings.budget, run_dir)) if governor is None else governor.ledger


def settle_ledger(store: Store, settings: Settings, governor: LeasedGovernor | None = None) -> None:
    """
    Bring the ledger up to date with a run that has nothing to do, if a process of it died, or people changed it.

    Raises:
        LedgerError: The ledger can't be used.
    """
    if store.meta(TOKEN) is None and store.meta(REPLACED) is None:
        return
    if is_copy(store.reader):
        # What it has is in the ledger as the other directory's.
        return
    if (ledger := open_ledger(settings, store.run_dir, governor)) is None:
        return
    with closing(ledger):
        ledger.close_run(register(ledger, store, settings), [])


def register(ledger: RunLedger, store: Store, settings: Settings) -> int:
    """
    Register that this process works on a run, make sure that the ledger has all of it, and return the run's key.

    Raises:
        LedgerError: The ledger can't be used.
    """
    token = store.meta(TOKEN)
    if token is None:
        token = uuid.uuid4().hex
        with store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (TOKEN, token))
    replaced = jsontext.loads(store.meta(REPLACED) or "[]")
    run, is_due = ledger.open_run(token, settings.name, str(store.run_dir.resolve()))
    if is_due or replaced or store.meta(costs.LEDGER_DUE) is not None:
        ledger.sync_run(run, costs.entries(store.reader), replaced=replaced)
        with store.transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (costs.LEDGER_DUE, REPLACED))
    return run
