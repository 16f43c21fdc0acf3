"""
What each write to ``run.db`` promises, and connections to it; its tables are in `runner.store.tables`.

``run.db`` is the only source of truth of a run; results, summary and report are derived from it and can be
written again. It is an SQLite database with a write-ahead log and ``synchronous=FULL``, so a commit that
returned survives a power cut.

- The intent to submit a job is committed before its POST is sent. So a job that a later run finds in
  `submitting` is exactly a job whose POST may have been sent.
- A task id is committed before the first poll of the task.
- A job is reported as ended only after its end is committed, and is committed as succeeded only after its
  assets are durable.
- Everything else may wait for the next commit: losing it costs a poll or a download, never money.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from runner.core.filenames import DB_NAME, EPOCH_NAME, LOCK_NAME, RESULTS_NAME, RUN_JSON_NAME
from runner.core.sanitize import command_text
from runner.disk import MOVED_HINT, sync_folder
from runner.errors import DiskFull, RunDirError, RunLocked, StoreDamaged, StoreMissing, StoreTooNew
from runner.store import query
from runner.store.freshness import require_current, require_database
from runner.store.tables import APPLICATION_ID, FORMAT, LATER_ADDITIONS, SCHEMA

_LATER_TABLES = dict(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+) (\([^;]+)", LATER_ADDITIONS))
"""The columns of each table that an earlier version lacks."""

_MIN_BYTES = 512
"""Size of the smallest page, and so of the smallest database that is not empty."""

NO_ROOM = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})

IN_USE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
"""How the names of errors begin that another program causes."""

_LOG_BYTES = 64 << 10
"""What SQLite needs to begin a log and its index."""

_READ_CACHE = -500
"""Of a connection that only reads: the negative number of kB."""

_CHECK_BELOW_BYTES = 64_000_000
"""Files up to this size are checked as a whole when they are opened, which takes a tenth of a second."""


def connect_writer(run_dir: Path, *, is_adopted: bool = False) -> sqlite3.Connection:
    """
    Open ``run.db`` for the one process that writes it, and create it if it does not exist.

    The caller has the run directory's lock, and knows that a missing ``run.db`` is a new one (`require_database`).

    Args:
        is_adopted: Whether the caller takes over what results know and the database does not.

    Raises:
        StoreDamaged: The file can't be read; it is left as it is.
        StoreTooNew: A newer version of the program wrote it.
        StoreOutdated: It is older than its directory; it is left as it is.
        DiskFull: There is no space to create it.
    """
    path = run_dir / DB_NAME
    is_new = not path.exists() or path.stat().st_size == 0
    with translated(path):
        if not is_new:
            # With a connection that leaves the log as it is.
            with closing(_connect_to_read(path)) as reader:
                _check(reader, path)
                if not is_adopted:
                    require_current(reader, run_dir)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            _prepare(connection)
            if is_new or not _has_tables(connection):
                # First, so that a process that dies in between leaves it to the next one.
                _sync_names_above(run_dir)
                _create(connection)
            connection.executescript(f"BEGIN; {LATER_ADDITIONS} COMMIT;")
        except BaseException:
            connection.close()
            raise
    return connection


def not_a_run(run_dir: Path) -> StoreMissing:
    """Return the error for what is not a run directory; the run in ``output/`` that has its name may be meant."""
    meant = Path("output", run_dir)
    hint = f"name a run directory, such as {meant if (meant / DB_NAME).is_file() else 'output/kittens'}"
    if run_dir.is_file():
        return StoreMissing(f"{run_dir} is a file, not a run directory", hint=hint)
    if not run_dir.is_dir():
        return StoreMissing(f"the run directory {run_dir} does not exist", hint=hint)
    return StoreMissing(f"{run_dir} is not a run directory: it has no {DB_NAME}", hint=hint)


def connect_reader(run_dir: Path, *, with_temp_tables: bool = False) -> sqlite3.Connection:
    """
    Open ``run.db`` for reading, even while another process writes it.

    Args:
        with_temp_tables: Whether temporary tables may be created on the connection.

    Raises:
        StoreMissing: There is no ``run.db`` in the directory, or it is still empty.
        StoreDamaged, StoreTooNew: As for the writer.
    """
    path = run_dir / DB_NAME
    if not path.exists():
        require_database(run_dir)
        raise not_a_run(run_dir)
    with translated(path):
        connection = _connect_to_read(path)
        try:
            _check(connection, path)
            connection.execute("PRAGMA temp_store = MEMORY")
            _complete_tables(connection, run_dir)
            if not with_temp_tables:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_both(run_dir: Path, *, is_adopted: bool) -> tuple[sqlite3.Connection, sqlite3.Connection, bool]:
    """Open ``run.db`` as `connect_writer` and `connect_beside` do; return also whether it has a write-ahead log."""
    writer = connect_writer(run_dir, is_adopted=is_adopted)
    (mode,) = writer.execute("PRAGMA journal_mode").fetchone()
    return writer, connect_beside(run_dir), mode == "wal"


def connect_beside(run_dir: Path) -> sqlite3.Connection:
    """Open ``run.db`` for reading in the process that has it open to write, and so has checked it."""
    connection = _connect_by(f"file:{quote(str((run_dir / DB_NAME).resolve()))}?mode=ro")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = {_READ_CACHE}")
    return connection


@contextmanager
def reading(run_dir: Path, *, with_temp_tables: bool = False) -> Iterator[sqlite3.Connection]:
    """
    Open ``run.db`` for reading, as `connect_reader` does, until the block ends.

    Raises:
        RunDirError: It can't be read.
    """
    reader = connect_reader(run_dir, with_temp_tables=with_temp_tables)
    with closing(reader), translated(run_dir / DB_NAME):
        yield reader


def _connect_to_read(path: Path) -> sqlite3.Connection:
    connection = _connect_by(uri_to_read(path))
    try:
        _has_tables(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorname in {*NO_ROOM, "SQLITE_CANTOPEN"} and not _has_room(path.parent):
            with suppress(OSError):
                return _connect_to_copy(path)
        raise
    return connection


def _connect_to_copy(path: Path) -> sqlite3.Connection:
    """Open a copy elsewhere of a database with a log, because SQLite needs an index of the log even to read."""
    from shutil import copy
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="runner-") as folder:
        for name in (path.name, f"{path.name}-wal"):
            copy(path.with_name(name), folder)
        connection = _connect_by(f"file:{quote(folder)}/{path.name}?mode=rw")
        # It opens the files, which it needs no names for from here on.
        _has_tables(connection)
        return connection


def _connect_by(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)


def uri_to_read(path: Path) -> str:
    """Return the URI with which SQLite reads a database that another process may write, also in a read-only folder."""
    # Not to be written where there is a log: the last connection that closes would write it to a database that it may
    # not belong to. And "immutable" only without a log, and where SQLite could not begin one, as it does even to read.
    mode = "ro" if _has(path, "-wal") else "rw"
    if mode == "rw" and not _has(path, "-journal") and not _has_room(path.parent):
        mode = "ro&immutable=1"
    return f"file:{quote(str(path.resolve()))}?mode={mode}"


def _has(path: Path, end: str) -> bool:
    """Return whether there is something in a file beside a database."""
    return _size(path.with_name(f"{path.name}{end}")) > 0


def _has_room(folder: Path) -> bool:
    """Return whether SQLite can begin a log in a folder: it may be written, and its disk is not full."""
    try:
        disk = os.statvfs(folder)
    except FileNotFoundError:
        # Another process has just deleted it: SQLite finds that out.
        return True
    # Some file systems do not say how large they are.
    is_full = disk.f_blocks > 0 and disk.f_bavail * disk.f_frsize < _LOG_BYTES
    return os.access(folder, os.W_OK, effective_ids=True) and not is_full


def delete_unused(run_dir: Path, *, with_folder: bool) -> None:
    """
    Delete ``run.db`` and what belongs to it, unless the run has attempts or results, or another process reads it.

    A reader of a deleted database would have its log by its name, which is that of the next database.

    Args:
        with_folder: Whether to delete the directory too, if there is nothing else in it.

    Raises:
        sqlite3.OperationalError: Another connection is open.
        OSError: There is something else in the directory.
    """
    if (run_dir / RESULTS_NAME).exists():
        return
    with closing(sqlite3.connect(run_dir / DB_NAME, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        if query.has_attempts(connection):
            return
        # The epoch without its database would count as a run whose database was lost.
        for name in (EPOCH_NAME, DB_NAME, LOCK_NAME):
            (run_dir / name).unlink(missing_ok=True)
    if with_folder:
        # What a shard has claimed the folder with.
        (run_dir / RUN_JSON_NAME).unlink(missing_ok=True)
        run_dir.rmdir()


def connect_empty() -> sqlite3.Connection:
    """Open a store without jobs, in memory, for queries about a run that does not exist yet."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _create(connection)
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert SQLite's errors to the program's own, except those that only a bug leads to."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        raise database_error(error, path) from error


def database_error(error: sqlite3.DatabaseError, path: Path) -> RunDirError | DiskFull:
    """Return the program's own error for one of SQLite, which names many things that happen to a file that is gone."""
    name = getattr(error, "sqlite_errorname", "")
    if name in NO_ROOM:
        return DiskFull(
            f"no space left to write {path}",
            hint=f"free some space, then: {command_text('runner', 'resume', path.parent)}",
        )
    if name.startswith(IN_USE):
        return RunLocked(f"{path} is in use by another program: {error}", hint="end it and try again")
    if not path.exists():
        return StoreMissing(f"{path} was moved or deleted while it was used", hint=MOVED_HINT)
    if name.startswith("SQLITE_IOERR"):
        return RunDirError(
            f"the disk failed while {path} was used: {error} ({name})",
            hint=f"check the disk, then: {command_text('runner', 'resume', path.parent)}",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return RunDirError(
            f"{path} can't be read or written: {error}", hint="check the directory's owner and permissions"
        )
    return StoreDamaged(
        f"{path} can't be read as the database of a run ({error}); it was left as it is",
        hint=f"restore it from a backup, or start from the results: "
        f"{command_text('runner', 'rerun', path.with_name(RESULTS_NAME))} -o NEW",
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite considers a shorter file a new database, and would overwrite it. Only its size is read: opening
    # and closing the file would release the locks of this process's other connections (as POSIX demands),
    # and the next program that reads it would consider the log abandoned and delete it.
    if 0 < _size(path) < _MIN_BYTES:
        raise sqlite3.DatabaseError("file is not a database")
    # Of one moment, since another process may create the tables now.
    connection.execute("BEGIN")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    has_tables = _has_tables(connection)
    connection.execute("COMMIT")
    if application == 0 and version == 0 and not has_tables:
        return
    if application != APPLICATION_ID:
        raise StoreDamaged(
            f"{path} is a database of another program; it was left as it is",
            hint="choose another run directory with -o",
        )
    if version > FORMAT:
        raise StoreTooNew(
            f"{path} has format {version}; this version of runner knows formats up to {FORMAT}",
            hint="upgrade runner, or use the version that wrote it",
        )
    connection.execute(f"PRAGMA cache_size = {_READ_CACHE}")
    if _size(path) <= _CHECK_BELOW_BYTES:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(result)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _complete_tables(connection: sqlite3.Connection, run_dir: Path) -> None:
    """Give a reader the tables that a run of an earlier version lacks until it is written again: they are empty."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if not tables:
        raise StoreMissing(f"{run_dir} has no run yet: its {DB_NAME} is empty", hint="runner run MANIFEST")
    for name in _LATER_TABLES.keys() - tables:
        connection.execute(f"CREATE TEMP TABLE {name} {_LATER_TABLES[name]}")


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
    # Rows are inserted and changed nearly in order. Four times as much, which a run would use until its end, saves a
    # twentieth of the time of inserting many jobs, and only if their ids are in no order.
    connection.execute("PRAGMA cache_size = -1000")
    connection.execute("PRAGMA journal_size_limit = 16000000")


def _create(connection: sqlite3.Connection) -> None:
    # One transaction: a crash leaves an empty file or a complete one.
    connection.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} {LATER_ADDITIONS} PRAGMA application_id = {APPLICATION_ID}; "
        f"PRAGMA user_version = {FORMAT}; COMMIT;"
    )


def _sync_names_above(run_dir: Path) -> None:
    """
    Make the names of a new run directory and of the folders above it durable; SQLite does so for its files.

    If a power cut removed the folder of a database, the run would be paid for twice.
    """
    for folder in run_dir.absolute().parents:
        # A folder of somebody else existed before.
        with suppress(OSError):
            sync_folder(folder)
