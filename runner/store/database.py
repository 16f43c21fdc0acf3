"""Connections to ``run.db``, and SQLite's errors in the program's own words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from runner.errors import DiskFull, RunDirError, StoreDamaged, StoreMissing, StoreTooNew

DB_NAME = "run.db"
RESULTS_NAME = "results.jsonl"

_SMALLEST_BYTES = 512
"""Of a page, and so of a database that has anything in it."""

_NO_ROOM = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})

_CHECK_BELOW_BYTES = 64_000_000
"""Files up to this size are read through once on opening; it takes a tenth of a second."""


def connect_writer(run_dir: Path) -> sqlite3.Connection:
    """
    Open ``run.db`` for the one process that writes it, creating it where there is none.

    The caller holds the run directory's lock.

    Raises:
        StoreMissing: There are results but no ``run.db``: jobs that were paid for would be paid again.
        StoreDamaged: The file can't be read; it is left as it is.
        StoreTooNew: A newer version of the program wrote it.
        DiskFull: There is no room to create it.
    """
    path = run_dir / DB_NAME
    is_new = not path.exists() or path.stat().st_size == 0
    if is_new and (run_dir / RESULTS_NAME).exists():
        raise StoreMissing(
            f"{run_dir} has {RESULTS_NAME} but no {DB_NAME}: what was already paid for can't be known",
            hint=f"start a new directory from the results: runner rerun {run_dir / RESULTS_NAME} -o NEW",
        )
    with translated(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            if not is_new:
                _check(connection, path)
            _prepare(connection)
            if is_new or not _has_tables(connection):
                _create(connection)
                _sync_names_above(run_dir)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(run_dir: Path, *, with_temp_tables: bool = False) -> sqlite3.Connection:
    """
    Open ``run.db`` for reading, also while another process writes it.

    Args:
        may_choose: Whether it may keep a choice of jobs in a temporary table.

    Raises:
        StoreMissing: There is no ``run.db`` in the directory, or no process has got so far as to fill it.
        StoreDamaged, StoreTooNew: As for the writer.
    """
    path = run_dir / DB_NAME
    if not path.exists():
        raise StoreMissing(
            f"{run_dir} is no run directory: it has no {DB_NAME}",
            hint="name the directory that a run wrote, such as output/kittens",
        )
    with translated(path):
        # Not "immutable": a run may be going on, and its log has to be read too.
        uri = f"file:{quote(str(path.resolve()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            _check(connection, path)
            _require_tables(connection, run_dir)
            connection.execute("PRAGMA temp_store = MEMORY")
            if not with_temp_tables:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_empty() -> sqlite3.Connection:
    """Open a store without jobs, in memory, for questions about a run that has not begun."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _create(connection)
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into the program's own."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translate(error, path) from error


def _translate(error: sqlite3.DatabaseError, path: Path) -> RunDirError | DiskFull:
    name = getattr(error, "sqlite_errorname", "")
    if name in _NO_ROOM:
        return DiskFull(
            f"no room to write {path}",
            hint=f"free some space, then: runner resume {path.parent}",
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RunDirError(f"{path} is in use by another program: {error}", hint="end it, and try again")
    if name.startswith("SQLITE_IOERR"):
        return RunDirError(
            f"the disk failed under {path}: {error} ({name})", hint="look at the disk, then go on"
        )
    if name in ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM") or name.startswith("SQLITE_READONLY_"):
        return RunDirError(f"{path} can't be written: {error}", hint="check the directory's owner and rights")
    return StoreDamaged(
        f"{path} can't be read as a run's database ({error}); it was left as it is",
        hint=f"restore it from a backup, or start from the results: "
        f"runner rerun {path.with_name(RESULTS_NAME)} -o NEW",
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite takes a shorter file for a new database, and would write over it. Only its size is looked at:
    # to open the file and close it again would drop the locks that this process's other connections hold on
    # it (POSIX has it so), and the next program to read it would take the log for abandoned and delete it.
    if 0 < path.stat().st_size < _SMALLEST_BYTES:
        raise sqlite3.DatabaseError("file is not a database")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == 0 and version == 0 and not _has_tables(connection):
        return
    if application != APPLICATION_ID:
        raise StoreDamaged(
            f"{path} is a database of another program; it was left as it is",
            hint="choose another run directory with -o",
        )
    if version > FORMAT:
        raise StoreTooNew(
            f"{path} has format {version}; this version of runner knows formats up to {FORMAT}",
            hint="upgrade runner, or use the version that made the run",
        )
    if path.stat().st_size <= _CHECK_BELOW_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)


def _require_tables(connection: sqlite3.Connection, run_dir: Path) -> None:
    if not _has_tables(connection):
        raise StoreMissing(f"{run_dir} holds no run yet: its {DB_NAME} is empty", hint="runner run MANIFEST")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _prepare(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        # Some network file systems can't map the log's index into memory.
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    # Rows are taken in and changed nearly in order. Four times as much, which a large run would fill for good,
    # saves a seventh of the time of taking a million jobs in, and that only where their ids are in no order.
    connection.execute("PRAGMA cache_size = -4000")
    connection.execute("PRAGMA journal_size_limit = 16000000")


def journal_mode(connection: sqlite3.Connection) -> str:
    """Name the journal in use: ``wal``, or ``delete`` where the file system can't do that."""
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    # One transaction: a crash leaves an empty file or a whole one.
    connection.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    )


def _sync_names_above(run_dir: Path) -> None:
    """
    Make the names of a new run directory and of the folders above it durable; SQLite does so for what is in it.

    A database that a power cut leaves without its folder is a run that is paid for twice.
    """
    for folder in run_dir.absolute().parents:
        # One that belongs to somebody else was there before.
        with suppress(OSError):
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


FORMAT = 2
"""
Raised whenever an older program could no longer use the file.

Format 1 has a table ``events`` more, which nothing reads. It is written as it is.
"""

APPLICATION_ID = 0x72756E72
"""The letters 'runr', so that `file` and we can tell the database from another program's."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    idx INTEGER NOT NULL,
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    is_gone INTEGER NOT NULL DEFAULT 0,
    has_files INTEGER NOT NULL DEFAULT 0,
    timeout_s REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    task_id TEXT,
    other_task_id TEXT,
    remote_status TEXT,
    key TEXT,
    submitted_at REAL,
    completed_at REAL,
    finished_at REAL,
    generate_s REAL,
    download_s REAL,
    polls INTEGER NOT NULL DEFAULT 0,
    error_class TEXT,
    error TEXT,
    warnings TEXT
);
CREATE INDEX jobs_pending ON jobs (model, idx) WHERE state = 'pending';
CREATE INDEX jobs_idx ON jobs (is_gone, idx);

CREATE TABLE specs (
    seq INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    metadata TEXT NOT NULL,
    schema TEXT NOT NULL,
    warnings TEXT NOT NULL,
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    col INTEGER NOT NULL,
    task_id TEXT
);

CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    submitted_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    task_id TEXT,
    http_status INTEGER,
    error TEXT,
    key TEXT,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;

CREATE TABLE assets (
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    content_type TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    duration_s REAL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (seq, kind)
) WITHOUT ROWID;

CREATE TABLE parts (
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    facts TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (seq, kind)
) WITHOUT ROWID;
"""
