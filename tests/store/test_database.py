"""Opening run.db, and what SQLite says in the program's own words."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runner.core.filenames import DB_NAME, LOCK_NAME, RESULTS_NAME
from runner.errors import DiskFull, RunDirError, RunLocked, RunnerError, StoreDamaged, StoreMissing
from runner.store import query
from runner.store.database import (
    connect_empty,
    connect_reader,
    connect_writer,
    reading,
    translated,
    uri_to_read,
)
from runner.store.ledger import Ledger
from runner.store.ledger_report import open_to_read, spent_by
from runner.store.local_view import remembered_journal
from runner.store.lock import RunLock, holder_of
from runner.store.store import Store


def error(name: str) -> sqlite3.DatabaseError:
    """Make an error of SQLite."""
    made = sqlite3.OperationalError("said by SQLite")
    made.sqlite_errorname = name
    return made


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a file in the place of a database, and return its path, which is relative."""
    monkeypatch.chdir(tmp_path)
    path = Path("out/run.db")
    path.parent.mkdir()
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "cls", "message", "hint"),
    [
        ("SQLITE_FULL", DiskFull, "out/run.db", "runner resume out"),
        ("SQLITE_IOERR_WRITE", DiskFull, "out/run.db", "runner resume out"),
        ("SQLITE_IOERR_SHMSIZE", DiskFull, "out/run.db", "runner resume out"),
        ("SQLITE_BUSY", RunLocked, "in use by another program: said by SQLite", "try again"),
        ("SQLITE_BUSY_SNAPSHOT", RunLocked, "in use by another program: said by SQLite", "try again"),
        ("SQLITE_LOCKED", RunLocked, "in use by another program: said by SQLite", "try again"),
        ("SQLITE_PROTOCOL", RunLocked, "in use by another program: said by SQLite", "try again"),
        ("SQLITE_IOERR_READ", RunDirError, "the disk failed", "check the disk"),
        ("SQLITE_READONLY", RunDirError, "out/run.db can't be read or written", "permissions"),
        ("SQLITE_READONLY_DIRECTORY", RunDirError, "out/run.db can't be read or written", "permissions"),
        ("SQLITE_CANTOPEN", RunDirError, "out/run.db can't be read or written", "permissions"),
        ("SQLITE_PERM", RunDirError, "out/run.db can't be read or written", "permissions"),
        ("SQLITE_CORRUPT", StoreDamaged, "it was left as it is", "runner rerun out/results.jsonl -o NEW"),
        ("SQLITE_NOTADB", StoreDamaged, "it was left as it is", "runner rerun out/results.jsonl -o NEW"),
    ],
)
def test_each_error_of_sqlite_says_what_to_do(
    name: str, cls: type[RunnerError], message: str, hint: str, database: Path
) -> None:
    """A full disk, another program, a failing disk, missing rights and damage each want something else."""
    with pytest.raises(RunnerError) as caught, translated(database):
        raise error(name)

    assert cls is type(caught.value)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSTAT", "SQLITE_CANTOPEN", "SQLITE_READONLY_DBMOVED"])
def test_error_of_a_file_that_is_gone(name: str, database: Path) -> None:
    """What SQLite says of a file that was moved or deleted is not the disk's fault."""
    database.unlink()

    with pytest.raises(StoreMissing, match="was moved or deleted"), translated(database):
        raise error(name)


def test_error_without_a_name_is_damage(database: Path) -> None:
    """An error that the program finds itself, such as a file that is too short, has no name."""
    with pytest.raises(StoreDamaged), translated(database):
        raise sqlite3.DatabaseError("file is not a database")


def write_beside(other: sqlite3.Connection, run_dir: Path) -> None:
    """Write to an open store while another program writes."""
    with Store(run_dir) as store:
        with store.transaction() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        connection.execute("BEGIN IMMEDIATE")


def test_whatever_is_done_with_an_open_store_says_what_to_do(tmp_path: Path) -> None:
    """A lock of another program is found by any statement, and is no bug of this program; a bug remains one."""
    with Store(tmp_path):
        pass
    with (
        closing(sqlite3.connect(tmp_path / DB_NAME, isolation_level=None)) as other,
        pytest.raises(RunLocked, match="in use by another program"),
    ):
        write_beside(other, tmp_path)
    with pytest.raises(sqlite3.ProgrammingError), reading(tmp_path) as reader:
        reader.execute("SELECT ?")


@pytest.mark.extended
def test_run_that_another_program_holds_is_in_use(tmp_path: Path) -> None:
    """Who only looks waits for ten seconds, and says so: the exit code is that of a directory in use."""
    with Store(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DB_NAME, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunLocked, match="in use by another program") as caught, reading(tmp_path):
            pass
    assert 5 == caught.value.exit_code


def test_store_without_a_file_answers_every_question() -> None:
    """A run that has not begun has no jobs."""
    with closing(connect_empty()) as connection:
        assert 0 == sum(query.counts(connection).values())
        assert query.meta(connection).get("finished") is None


def test_reader_changes_nothing(tmp_path: Path) -> None:
    """A reader can't write to the run, also where it may keep a choice of jobs."""
    with Store(tmp_path), closing(connect_reader(tmp_path)) as reader:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM jobs")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("CREATE TEMP TABLE selected (seq INTEGER)")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write a folder from this process for a block, also from root's, whom no mode stops."""
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_run_of_somebody_else_can_be_read() -> None:
    """Where no log can be begun, a run that has ended is read without one, and its ledger too; a lock says why not."""
    # Only their owner may enter the folders of the tests, so that another user would not even come near.
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        with Store(folder), closing(Ledger(folder / "spend.db")):
            pass
        (folder / LOCK_NAME).unlink()

        with read_only(folder):
            with closing(connect_reader(folder)) as reader:
                assert 0 == sum(query.counts(reader).values())
            with open_to_read(folder / "spend.db") as ledger:
                assert [] == list(spent_by(ledger, "day"))
            with pytest.raises(RunDirError, match="Permission denied") as caught, RunLock(folder):
                pass
    assert "permissions" in str(caught.value.hint)


ON_A_DISK = """
import contextlib, shutil, subprocess, sys
from pathlib import Path
from runner.store import query
from runner.store.database import connect_reader
from runner.store.ledger import Ledger
from runner.store.ledger_report import open_to_read, spent_by
from runner.store.store import Store

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
with Store(disk / "ended") as store, contextlib.closing(Ledger(disk / "spend.db")):
    shutil.copytree(store.run_dir, disk / "killed", ignore=shutil.ignore_patterns("*-shm", ".reserve"))
# What an attempt to read left when the disk was full.
for path in (disk / "ended" / "run.db", disk / "killed" / "run.db", disk / "spend.db"):
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).touch()
with contextlib.suppress(OSError), open(disk / "fill", "wb", buffering=0) as file:
    while file.write(bytes(512)):
        pass
for state in ("full", "read-only"):
    for name in ("ended", "killed"):
        with contextlib.closing(connect_reader(disk / name)) as reader:
            print(state, name, sum(query.counts(reader).values()))
    with open_to_read(disk / "spend.db") as ledger:
        print(state, "spend", *spent_by(ledger, "day"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
"""


def test_run_on_a_full_or_read_only_disk_can_be_read(tmp_path: Path) -> None:
    """A run that has ended has no log and none can be begun; one that was killed may have lost the index of its log."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, timeout=30).returncode:
        pytest.skip("no disk can be mounted for a test")

    done = subprocess.run(
        [*alone, sys.executable, "-c", ON_A_DISK, str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    states = [
        f"{state} {name}" for state in ("full", "read-only") for name in ("ended 0", "killed 0", "spend")
    ]
    assert states == done.stdout.splitlines(), done.stderr


def test_reader_of_no_run_says_so(tmp_path: Path) -> None:
    """A directory without run.db is none of a run, one with an empty one is of a run that has not begun."""
    with pytest.raises(StoreMissing, match="it has no run.db"):
        connect_reader(tmp_path)

    (tmp_path / RESULTS_NAME).touch()
    with pytest.raises(StoreMissing, match="has results.jsonl but no run.db") as refused:
        connect_reader(tmp_path)
    assert f"runner rerun {tmp_path / RESULTS_NAME} -o NEW" in str(refused.value.hint)

    (tmp_path / DB_NAME).touch()
    with pytest.raises(StoreMissing, match="is empty"):
        connect_reader(tmp_path)


def test_folder_that_is_deleted_while_it_is_opened() -> None:
    """Whether there is room in it is left to SQLite, whose errors are told."""
    with TemporaryDirectory() as folder:
        path = Path(folder, DB_NAME)

    assert uri_to_read(path).endswith("?mode=rw")


def test_empty_database_is_a_new_one(tmp_path: Path) -> None:
    """A process that died right after it had made the file, or an empty database in it, has not spoilt the run."""
    (tmp_path / DB_NAME).touch()
    with closing(connect_writer(tmp_path)) as connection:
        assert ("wal",) == connection.execute("PRAGMA journal_mode").fetchone()

    (tmp_path / DB_NAME).unlink()
    with closing(sqlite3.connect(tmp_path / DB_NAME)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    with closing(connect_writer(tmp_path)) as connection:
        assert 0 == sum(query.counts(connection).values())


def test_a_new_database_is_synced_once(tmp_path: Path) -> None:
    """All tables are made in one transaction: on a slow disk each commit takes as long as many statements."""
    with closing(connect_writer(tmp_path)):
        log = (tmp_path / f"{DB_NAME}-wal").read_bytes()

    page = int.from_bytes(log[8:12])
    frames = [log[start : start + 8] for start in range(32, len(log), 24 + page)]
    # A frame that ends a transaction has the size of the database in it.
    assert 1 == sum(int.from_bytes(frame[4:]) > 0 for frame in frames)


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """What another program keeps under this name is left as it is."""
    with closing(sqlite3.connect(tmp_path / DB_NAME)) as connection:
        connection.execute("CREATE TABLE theirs (x)")

    with pytest.raises(StoreDamaged, match="is a database of another program"):
        connect_writer(tmp_path)

    with closing(sqlite3.connect(tmp_path / DB_NAME)) as connection:
        assert [("theirs",)] == connection.execute("SELECT name FROM sqlite_schema").fetchall()


def test_failed_opening_leaves_the_run_free(tmp_path: Path) -> None:
    """A database that can't be used does not keep the lock from the next process, nor from this one."""
    (tmp_path / DB_NAME).write_bytes(b"x" * 600)
    for _ in range(2):
        with pytest.raises(StoreDamaged), Store(tmp_path):
            pass

    (tmp_path / DB_NAME).unlink()
    with Store(tmp_path) as store:
        assert query.meta(store.reader).get("finished") is None


def test_look_at_who_works_in_a_run_leaves_it_free(tmp_path: Path) -> None:
    """Whoever looks holds the lock for an instant, and nobody finds the run in use because of that."""
    with Store(tmp_path):
        assert holder_of(tmp_path) is not None
    assert holder_of(tmp_path) is None

    with Store(tmp_path) as store:
        assert store.has_log


def fill(run_dir: Path) -> None:
    """Write to a store until there is no room for a page more."""
    with Store(run_dir) as store, store.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", ((str(n), "x" * 4000) for n in range(9)))


def test_full_disk_in_a_transaction_is_told(tmp_path: Path) -> None:
    """SQLite undoes a transaction that found no space, and what is undone then must not hide why."""
    with pytest.raises(DiskFull):
        fill(tmp_path)


def test_transaction_that_fails_changes_nothing(store: Store) -> None:
    """All or nothing, and the store is fit for the next one."""

    class Stop(Exception):
        pass

    with suppress(Stop), store.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', '1')")
        raise Stop

    with store.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('b', '2')")
    assert (None, "2") == (query.meta(store.reader).get("a"), query.meta(store.reader).get("b"))


def test_mark_of_a_finished_run_goes_with_the_next_change(store: Store) -> None:
    """Derived files show the store as it stands only until something is written; a look writes nothing."""
    store.mark_finished([])
    store.mark_finished([])
    with store.transaction():
        pass
    assert store.is_finished

    with store.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', '1')")
    assert not store.is_finished


def test_results_that_were_edited_are_not_those_of_a_finished_run(store: Store) -> None:
    """Neither the size nor the end of the file shows every edit."""
    results = store.run_dir / "results.jsonl"
    results.write_bytes(b"a" * 200_000)
    os.utime(results, (1, 1))
    store.mark_finished(["results.jsonl"])
    assert store.is_finished

    results.write_bytes(b"b" * 100_000 + b"a" * 100_000)
    assert not store.is_finished


async def test_run_takes_the_mark_of_a_finished_one_away(store: Store) -> None:
    """While a run is going the derived files are behind."""
    store.mark_finished([])
    async with store:
        assert not store.is_finished


def test_database_without_tables_is_the_view_of_no_journal(tmp_path: Path) -> None:
    """A process that is killed while it makes ``run.db`` leaves a file without tables; the next one begins."""
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        connection.execute("PRAGMA user_version = 0")
        connection.execute("VACUUM")

    assert remembered_journal(tmp_path) is None
