"""
The ledger: what all runs that share a budget have spent, by day, in an SQLite file that many processes use at once.

A run's ``run.db`` and the ledger can't commit together, so the order decides what a crash loses:

1. The ledger first sets an allowance aside for a run, durably, in a transaction that holds the day's and the month's
   limits. The run reserves the prices of its jobs out of it. So whatever happens, the limits hold.
2. Then ``run.db`` commits a job's reservation with its intent, and later what became of it. It is the truth.
3. Only what is durable there is written to the ledger as an entry, and the reservation leaves the allowance.

A crash after 1 leaves an allowance that nobody uses, what the run submits in about two seconds; after 2, entries that are
missing or too high. Both make others too careful, never too generous, until the run's next start replaces all of its
entries by what ``run.db`` says (`sync_run`), and drops its allowance. If it is never started again, its allowance counts
until the day is over. The other order, entries first, would release money for a job whose release a
crash may undo: others would spend it, and the job becomes uncertain.

Amounts are in billionths. Every transaction takes the write lock at its start and waits `LOCK_WAIT_S` for it; no lock
is held across anything else. ``totals`` is kept by each transaction, so that sums never read the entries.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct, field

from runner.core.budget import block
from runner.core.cost import Cost, CostState
from runner.core.money import Money, to_nanos
from runner.errors import LedgerDamaged, LedgerError, LedgerTooNew
from runner.store.costs import LedgerEntry
from runner.store.database import uri_to_read
from runner.store.ledger_texts import LOCK_WAIT_S, short_tags, translate
from runner.store.rows import BulkStatement, Row, insert_rows

FORMAT = 1
APPLICATION_ID = 0x7370656E
"""The letters 'spen', which distinguish a ledger from another program's database."""

_SCHEMA = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    is_open INTEGER NOT NULL
);
CREATE TABLE allowances (
    run INTEGER NOT NULL,
    day TEXT NOT NULL,
    currency TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (run, day, currency)
) WITHOUT ROWID;
CREATE TABLE kinds (
    kind INTEGER PRIMARY KEY,
    day TEXT NOT NULL,
    currency TEXT NOT NULL,
    model TEXT NOT NULL,
    UNIQUE (day, currency, model)
);
CREATE TABLE entries (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    state TEXT NOT NULL,
    amount INTEGER NOT NULL,
    tags TEXT,
    PRIMARY KEY (run, seq, number)
) WITHOUT ROWID;
CREATE TABLE totals (
    kind INTEGER NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL,
    amount INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (kind, run, state)
) WITHOUT ROWID;
"""


_SAVE = BulkStatement("INSERT OR REPLACE INTO entries VALUES ", 7)
_SAVED_AT_ONCE = 1024


class LedgerLimits(Struct, frozen=True):
    """The limits that a run holds itself to, in its currency."""

    day: Money | None = None
    month: Money | None = None


class Exchange(Struct, frozen=True, kw_only=True):
    """
    What a run tells the ledger, and asks of it.

    Attributes:
        entries: Attempts that changed.
        give_back: What leaves the run's allowance, by day.
        need: What the run needs at least, or 0 for nothing.
        ask: What it would like to have.
    """

    entries: Sequence[LedgerEntry] = ()
    give_back: Mapping[str, int] = field(default_factory=dict)
    day: str = ""
    currency: str = ""
    need: int = 0
    ask: int = 0


class Grant(Struct, frozen=True):
    """
    What a run got, and how much of each limit others and it have used.

    Attributes:
        amount: What was added to its allowance; 0 if what it needs does not fit.
        day_used: Of the day, by all runs, before the grant.
        month_used: Of the month.
    """

    amount: int
    day_used: int
    month_used: int


class Ledger:
    """
    An open ledger; created if it does not exist. Use it from one thread at a time.

    Args:
        lock_wait_s: How long another process may hold it.

    Raises:
        LedgerLocked: Another process holds it for too long.
        LedgerDamaged: It can't be read; it is left as it is.
        LedgerTooNew: A newer version of the program wrote it.
        LedgerError: It can't be created or written.
    """

    def __init__(self, path: Path, *, lock_wait_s: float = LOCK_WAIT_S, is_read_only: bool = False) -> None:
        self.path = path
        self._kinds: dict[tuple[float, str, str], int] = {}
        self._paths: dict[int, str] = {}
        with self._translated():
            if is_read_only:
                self._connection = _connect(uri_to_read(path), lock_wait_s, uri=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = _connect(str(path), lock_wait_s)
            try:
                self._prepare(is_read_only=is_read_only)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prepare(self, *, is_read_only: bool) -> None:
        connection = self._connection
        (application,), (version,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application == APPLICATION_ID and version > FORMAT:
            raise LedgerTooNew(
                f"{self.path} has format {version}; this version of runner knows formats up to {FORMAT}",
                hint="upgrade runner, or name another file with budget.ledger",
            )
        if application == APPLICATION_ID:
            if not is_read_only:
                connection.execute("PRAGMA synchronous = FULL")
            return
        has_tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if has_tables or application or is_read_only:
            raise LedgerDamaged(
                f"{self.path} is not a ledger; it was left as it is",
                hint="name another file with budget.ledger",
            )
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            # Another process may have been faster.
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._commit()
            except BaseException:
                # Ids that were new in it are gone.
                self._kinds.clear()
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise translate(error, self.path) from error
        except OSError as error:
            raise LedgerError(
                f"{self.path} can't be created: {error.strerror or error}",
                hint="check the folder's disk, owner and permissions, or name another file with budget.ledger",
            ) from error

    # What a run does.

    def open_run(self, token: str, name: str, path: str) -> tuple[int, bool]:
        """
        Register that a process works on a run, and return the run's key.

        Returns:
            The key, and whether the ledger may not know all of the run: it is new here, or a process of it died.
        """
        with self._transaction() as connection:
            row = connection.execute("SELECT is_open FROM runs WHERE token = ?", (token,)).fetchone()
            (run,) = connection.execute(
                "INSERT INTO runs (token, name, path, is_open) VALUES (?, ?, ?, 1) ON CONFLICT (token) DO UPDATE SET "
                "name = excluded.name, path = excluded.path, is_open = 1 RETURNING run",
                (token, name, path),
            ).fetchone()
        self._paths[run] = path
        return run, row is None or bool(row[0])

    def sync_run(self, run: int, entries: Iterable[LedgerEntry], *, replaced: Sequence[str] = ()) -> None:
        """Replace all that is known of a run, and of those (their tokens) that it replaced; drop their allowances."""
        tokens = json.dumps(list(replaced))
        own = "SELECT run FROM runs WHERE run = ? OR token IN (SELECT value FROM json_each(?))"
        with self._transaction() as connection:
            for table in ("allowances", "entries", "totals"):
                connection.execute(f"DELETE FROM {table} WHERE run IN ({own})", (run, tokens))
            self._save(run, entries)

    def exchange(self, run: int, exchange: Exchange, limits: LedgerLimits) -> Grant:
        """Save what changed, give back what is not needed, and get a new allowance, all or nothing."""
        with self._transaction() as connection:
            self._require_own(run)
            self._save(run, exchange.entries)
            for day, amount in exchange.give_back.items():
                self._allow(run, day, exchange.currency, -amount)
            if not exchange.need:
                return Grant(0, 0, 0)
            used = {
                period: self._used(exchange.currency, period) for period in (exchange.day, exchange.day[:7])
            }
            day_used, month_used = used.values()
            left = min(
                (
                    to_nanos(limit.amount) - amount
                    for limit, amount in ((limits.day, day_used), (limits.month, month_used))
                    if limit is not None
                ),
                default=None,
            )
            amount = block(exchange.need, exchange.ask, left)
            if amount:
                self._allow(run, exchange.day, exchange.currency, amount)
            connection.execute("DELETE FROM allowances WHERE run = ? AND amount = 0", (run,))
            return Grant(amount, day_used, month_used)

    def close_run(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        """Save what changed, and register that the process ended in good order: its allowance is free again."""
        with self._transaction() as connection:
            self._require_own(run)
            self._save(run, entries)
            connection.execute("DELETE FROM allowances WHERE run = ?", (run,))
            connection.execute("UPDATE runs SET is_open = 0 WHERE run = ?", (run,))

    def _require_own(self, run: int) -> None:
        """Check that nobody has taken over a run with a journal: what this process held is the other's by now."""
        (path,) = self._connection.execute("SELECT path FROM runs WHERE run = ?", (run,)).fetchone()
        if path != self._paths[run]:
            raise LedgerError(f"{path} continues with the run", hint="let that process continue")

    def _allow(self, run: int, day: str, currency: str, amount: int) -> None:
        self._connection.execute(
            "INSERT INTO allowances VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET amount = max(0, amount + excluded.amount)",
            (run, day, currency, amount),
        )

    def _save(self, run: int, entries: Iterable[LedgerEntry]) -> None:
        # What is added to the amount and to the attempts of each total.
        changes: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
        saved: list[Row] = []
        for entry in entries:
            cost = entry.cost
            old = None if entry.is_new else self._take_out(run, entry.seq, cost)
            if old is not None:
                kind, state, amount = old
                change = changes[kind, state]
                change[0] -= amount
                change[1] -= 1
            if cost.state is CostState.RELEASED:
                continue
            kind, state, amount = self._kind(cost, entry.model), cost.state._value_, cost.amount
            saved.append((run, entry.seq, cost.number, kind, state, amount, short_tags(entry.metadata)))
            if len(saved) == _SAVED_AT_ONCE:
                insert_rows(self._connection, _SAVE, saved)
                saved.clear()
            change = changes[kind, state]
            change[0] += amount
            change[1] += 1
        insert_rows(self._connection, _SAVE, saved)
        self._connection.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "amount = amount + excluded.amount, attempts = attempts + excluded.attempts",
            [(kind, run, state, *change) for (kind, state), change in changes.items()],
        )

    def _take_out(self, run: int, seq: int, cost: Cost) -> tuple[int, str, int] | None:
        """Delete the entry of an attempt; return its kind, state and amount, or None if there is none."""
        old: tuple[int, str, int] | None = self._connection.execute(
            "DELETE FROM entries WHERE run = ? AND seq = ? AND number = ? RETURNING kind, state, amount",
            (run, seq, cost.number),
        ).fetchone()
        return old

    def _kind(self, cost: Cost, model: str) -> int:
        key = (cost.at // 86400, cost.currency, model)
        kind = self._kinds.get(key)
        if kind is None:
            values = (cost.day, cost.currency, model)
            self._connection.execute(
                "INSERT OR IGNORE INTO kinds (day, currency, model) VALUES (?, ?, ?)", values
            )
            (kind,) = self._connection.execute(
                "SELECT kind FROM kinds WHERE day = ? AND currency = ? AND model = ?", values
            ).fetchone()
            self._kinds[key] = kind
        return kind

    def _used(self, currency: str, period: str) -> int:
        """Return what a day or a month has used: entries, and the allowances of runs."""
        first, last = period, f"{period}~"
        (entries,) = self._connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM kinds JOIN totals USING (kind) "
            "WHERE day >= ? AND day < ? AND currency = ?",
            (first, last, currency),
        ).fetchone()
        (allowances,) = self._connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM allowances WHERE day >= ? AND day < ? AND currency = ?",
            (first, last, currency),
        ).fetchone()
        return int(entries) + int(allowances)

    def used(self, currency: str, period: str) -> int:
        """Return what a day (2026-11-26) or a month (2026-11) has used of its budgets."""
        with self._translated():
            return self._used(currency, period)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for queries."""
        with self._translated():
            yield self._connection


def _connect(name: str, lock_wait_s: float, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        name,
        uri=uri,
        isolation_level=None,
        check_same_thread=False,
        timeout=lock_wait_s,
        cached_statements=64,
    )
