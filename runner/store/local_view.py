"""
``run.db`` as a view of a journal: kept if it has all that the journal has, else made from it, commit by commit.

What only ``run.db`` has is not trusted, with one exception: the task of a job that the journal calls uncertain. This machine
saved its id when the journal could not be written. The changes of one commit are a batch of rows: what a transaction
writes, and what a journal repeats.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from runner.core.filenames import BASE_NAME, DB_NAME, REBUILT_NAME
from runner.disk import sync_folder
from runner.errors import RunDirError, StoreMissing
from runner.store import query, rows
from runner.store.costs import SAVE_COSTS
from runner.store.database import connect_reader, translated
from runner.store.freshness import read_epoch
from runner.store.journal import RECORDS_WORTH_A_BASE, Contents, Journal
from runner.store.rows import BulkStatement, Row
from runner.store.tables import LATER_ADDITIONS
from runner.store.transitions import attach_task, recover

if TYPE_CHECKING:
    from runner.store.store import Store


_SAVE: Mapping[str, BulkStatement | str] = {
    "attempts": rows.SAVE_ATTEMPTS,
    "parts": rows.SAVE_PART,
    "answers": rows.SAVE_ANSWER,
    "usages": rows.SAVE_USAGE,
    "tracks": rows.SAVE_TRACKS,
    "urls": rows.SAVE_URLS,
    "checks": rows.SAVE_CHECKS,
    "uploads": rows.SAVE_UPLOAD,
    "costs": SAVE_COSTS,
}
"""What writes each kind of rows whose first two columns are the key."""


class Batch(Struct):
    """
    The changes of one commit, and who waits for it.

    The row of a job is always the whole row, so that a batch can be applied again: the same batches in the same order
    lead to the same jobs.

    Attributes:
        is_journaled: Whether the journal has it.
    """

    number: int
    has_changes: bool = False
    is_journaled: bool = False
    intents: dict[int, Row] = field(default_factory=dict)
    jobs: dict[int, Row] = field(default_factory=dict)
    attempts: dict[Row, Row] = field(default_factory=dict)
    parts: dict[Row, Row] = field(default_factory=dict)
    answers: dict[Row, Row] = field(default_factory=dict)
    usages: dict[Row, Row] = field(default_factory=dict)
    tracks: dict[Row, Row] = field(default_factory=dict)
    urls: dict[Row, Row] = field(default_factory=dict)
    checks: dict[Row, Row] = field(default_factory=dict)
    uploads: dict[Row, Row] = field(default_factory=dict)
    costs: dict[Row, Row] = field(default_factory=dict)
    assets: list[Row] = field(default_factory=list)
    dropped_parts: list[tuple[int, str]] = field(default_factory=list)
    old_assets: list[tuple[int, int]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def apply(self, connection: sqlite3.Connection) -> int:
        """Write the rows in the transaction that the caller has open; return how many intents found a pending job."""
        rows.insert_rows(connection, rows.SAVE_JOBS, list(self.jobs.values()))
        before = connection.total_changes
        rows.insert_rows(connection, rows.SAVE_INTENTS, list(self.intents.values()))
        intents = connection.total_changes - before
        for kind, save in _SAVE.items():
            if isinstance(save, str):
                connection.executemany(save, getattr(self, kind).values())
            else:
                rows.insert_rows(connection, save, list(getattr(self, kind).values()))
        rows.insert_rows(connection, rows.DROP_PARTS, self.dropped_parts)
        connection.executemany(rows.DROP_OLD_ASSETS, self.old_assets)
        rows.insert_rows(connection, rows.SAVE_ASSETS, self.assets)
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", self.meta.items())
        return intents

    def to_json(self) -> dict[str, Any]:
        """Return the changes as JSON, without what is empty and without downloads that are under way."""
        kept = ("intents", "jobs", *(kind for kind in _SAVE if kind != "parts"))
        values: dict[str, Any] = {kind: list(getattr(self, kind).values()) for kind in kept}
        values |= {"assets": self.assets, "old_assets": self.old_assets, "meta": self.meta}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Batch:
        """Return the batch that `to_json` described."""
        by_key: dict[str, Any] = {
            kind: {tuple(row[:2]): row for row in values.get(kind, ())} for kind in _SAVE
        }
        return cls(
            number=0,
            intents={row[-1]: row for row in values.get("intents", ())},
            jobs={row[-1]: row for row in values.get("jobs", ())},
            **by_key,
            assets=values.get("assets", []),
            old_assets=values.get("old_assets", []),
            meta=values.get("meta", {}),
        )


JOURNAL, _POSITION, _IS_AHEAD = "journal", "journal_position", "journal_is_behind"
REBUILT = "rebuilt"
"""Keys of `meta`; the last one as long as nobody has looked for the files of a ``run.db`` that the journal made."""


class JournalOfRun(Struct, frozen=True):
    """Which journal a ``run.db`` is a view of, as it remembers it."""

    url: str
    run_id: str
    index: int


class _Local(Struct, frozen=True):
    journal: JournalOfRun | None
    position: int
    is_ahead: bool
    has_jobs: bool


def open_view(run_dir: Path, journal: Journal, *, at: float) -> bool:
    """
    Become the owner of a journal, and bring ``run.db`` up to date with it.

    The caller has the directory's lock, and no connection to ``run.db`` is open.

    Returns:
        Whether the journal is to get a copy of it before it continues.

    Raises:
        RunDirError: The directory holds another run, or what it holds is not in the journal.
        Fenced, StoreDamaged, ObjectStoreError: See `Journal.open`.
    """
    local = _read_local(run_dir)
    if local is not None:
        _require_same(run_dir, local, journal)
    contents = journal.open()
    if contents.base is None:
        # Nothing was ever submitted with this journal: it begins with what the directory has.
        return True
    is_long = len(contents.batches) > RECORDS_WORTH_A_BASE
    if local is not None and local.has_jobs:
        if local.journal is None:
            raise RunDirError(
                f"{run_dir} holds a run that the journal {journal.url} does not know, and the journal has one",
                hint="choose an empty directory with -o, or another journal",
            )
        if not local.is_ahead and local.position >= contents.last_change:
            # What a journal lost, such as one that was restored from a backup, it gets again.
            has_lost = local.position >= journal.position
            return is_long or has_lost
    return _rebuild(run_dir, journal, contents, at) or is_long


def remembered_journal(run_dir: Path) -> JournalOfRun | None:
    """
    Return the journal that a run directory is a view of; None if it has none.

    Raises:
        StoreDamaged, StoreTooNew: Its ``run.db`` can't be read.
    """
    local = _read_local(run_dir)
    return None if local is None else local.journal


def remember_position(connection: sqlite3.Connection, journal: Journal) -> None:
    """Save how far ``run.db`` has what the journal has, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_POSITION, str(journal.position)))


def remember_journal(connection: sqlite3.Connection, journal: Journal) -> None:
    """Save which journal ``run.db`` is a view of."""
    value = json.dumps({"url": journal.url, "run_id": journal.run_id, "index": journal.index})
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (JOURNAL, value))
    remember_position(connection, journal)


def mark_ahead(connection: sqlite3.Connection, *, is_ahead: bool = True) -> None:
    """Save whether ``run.db`` has something that the journal lacks, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_IS_AHEAD, str(int(is_ahead))))


def is_ahead(connection: sqlite3.Connection) -> bool:
    """Return whether ``run.db`` has something that the journal lacks."""
    return query.meta(connection).get(_IS_AHEAD) == "1"


def write_base(connection: sqlite3.Connection, run_dir: Path, journal: Journal) -> None:
    """
    Give the journal a copy of ``run.db``.

    Raises:
        Fenced, ObjectStoreError: See `Journal.append`.
    """
    copy = run_dir / BASE_NAME
    copy.unlink(missing_ok=True)
    try:
        connection.execute("VACUUM INTO ?", (str(copy),))
        journal.write_base(copy)
    finally:
        copy.unlink(missing_ok=True)
    connection.execute("BEGIN IMMEDIATE")
    remember_position(connection, journal)
    mark_ahead(connection, is_ahead=False)
    connection.execute("COMMIT")


def write_view(target: Path, journal: Journal, contents: Contents) -> None:
    """
    Write a new database of what a journal holds, which has a base.

    Raises:
        StoreDamaged, ObjectStoreError: See `Journal.fetch_base`.
    """
    assert contents.base is not None
    journal.fetch_base(contents.base, target)
    with translated(target), closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.executescript(LATER_ADDITIONS)
        connection.execute("BEGIN IMMEDIATE")
        for values in contents.batches:
            Batch.from_json(values).apply(connection)
        # What is known of half a download is of no use without its file, nor that results were written.
        connection.execute("DELETE FROM parts")
        connection.execute("DELETE FROM meta WHERE key IN ('finished', 'results')")
        connection.execute("COMMIT")


def _rebuild(run_dir: Path, journal: Journal, contents: Contents, at: float) -> bool:
    """Replace ``run.db`` by what the journal has; return whether the new one has anything that the journal lacks."""
    target, database = run_dir / REBUILT_NAME, run_dir / DB_NAME
    target.unlink(missing_ok=True)
    with translated(target):
        write_view(target, journal, contents)
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            has_local = database.exists() and database.stat().st_size > 0
            if has_local:
                connection.execute("ATTACH DATABASE ? AS local", (str(database.absolute()),))
            connection.execute("BEGIN IMMEDIATE")
            recovered = recover(connection, at=at)
            attached = _attach_saved_tasks(connection, at) if has_local else 0
            remember_journal(connection, journal)
            mark_ahead(connection, is_ahead=bool(recovered or attached))
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (REBUILT,))
            connection.execute(
                "INSERT OR REPLACE INTO meta SELECT 'epoch', max(?, (SELECT value + 0 FROM meta WHERE key = 'epoch'))",
                (read_epoch(run_dir),),
            )
            connection.execute("COMMIT")
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(DB_NAME + suffix).unlink(missing_ok=True)
    os.replace(target, database)
    sync_folder(run_dir)
    return bool(recovered or attached)


def _attach_saved_tasks(connection: sqlite3.Connection, at: float) -> int:
    """Give uncertain jobs the tasks that only the old ``run.db`` has, each of the very attempt that is uncertain."""
    found = connection.execute(
        "SELECT j.job_id, known.task_id FROM main.jobs j "
        "JOIN main.attempts own ON own.seq = j.seq AND own.number = j.attempt "
        "JOIN local.jobs l ON l.job_id = j.job_id "
        "JOIN local.attempts known ON known.seq = l.seq AND known.number = own.number "
        "WHERE j.state = 'uncertain' AND known.submitted_at = own.submitted_at "
        "AND known.outcome IN ('accepted', 'attached') AND known.task_id IS NOT NULL"
    ).fetchall()
    return sum(
        attach_task(connection, job_id, task_id, at=at)
        for job_id, task_id in found
        if query.task_owner(connection, task_id) is None
    )


def _read_local(run_dir: Path) -> _Local | None:
    database = run_dir / DB_NAME
    try:
        reader = connect_reader(run_dir)
    except StoreMissing:
        # Or the process that made it was killed before its tables were there.
        return None
    with closing(reader), translated(database):
        meta = query.meta(reader)
        has_jobs = reader.execute("SELECT 1 FROM jobs LIMIT 1").fetchone() is not None
        known = json.loads(meta[JOURNAL]) if JOURNAL in meta else None
        return _Local(
            None if known is None else JournalOfRun(**known),
            int(meta.get(_POSITION, 0)),
            meta.get(_IS_AHEAD) == "1",
            has_jobs,
        )


def _require_same(run_dir: Path, local: _Local, journal: Journal) -> None:
    known = local.journal
    if known is None or (known.run_id, known.index) == (journal.run_id, journal.index):
        return
    raise RunDirError(
        f"{run_dir} belongs to shard {known.index} of the journal {known.url}, not to shard {journal.index} of {journal.url}",
        hint="choose another directory with -o, or the journal that it belongs to",
    )


_NOT_COPIED = ("meta", "parts", "uploads")
"""Tables that belong to one directory, for half a download is of no use without its file; `_UPLOADS` copies the last one."""
_UPLOADS = """
INSERT INTO main.uploads SELECT * FROM shard.uploads WHERE true
ON CONFLICT DO UPDATE SET state = excluded.state, address = excluded.address, expires_at = excluded.expires_at
WHERE excluded.state = 'ready' AND (state <> 'ready' OR coalesce(excluded.expires_at, 9e999) > coalesce(expires_at, 9e999))
"""
"""Of a file that several shards uploaded, what is ready and remains longest is kept."""


def copy_rows(store: Store, database: Path) -> None:
    """
    Copy all that another database has of its jobs and of uploaded files, in one transaction.

    Raises:
        StoreDamaged: The other database can't be read, or has a job that this one has.
    """
    with store.attached(database, "shard"), store.transaction() as connection:
        (offset,) = connection.execute("SELECT coalesce(max(seq), 0) FROM main.jobs").fetchone()
        tables = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            own, theirs = (_columns(connection, schema, table) for schema in ("main", "shard"))
            common = [column for column in own if column in theirs]
            if table in _NOT_COPIED or "seq" not in common:
                continue
            values = ", ".join(f"seq + {offset}" if column == "seq" else f'"{column}"' for column in common)
            columns = ", ".join(f'"{column}"' for column in common)
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {values} FROM shard.{table}")
        if _columns(connection, "shard", "uploads"):
            connection.execute(_UPLOADS)


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    found = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [name for (name,) in found]
