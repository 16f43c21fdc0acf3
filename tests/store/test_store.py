"""Opening, locking and refusing run directories, and durable writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.filenames import DB_NAME, RESERVE_NAME
from runner.core.lifecycle import Event, State, advance
from runner.core.model import Asset, AssetKind, Attempt, Failure, FailureClass
from runner.errors import DiskFull, RunDirError, RunLocked, StoreDamaged, StoreMissing, StoreTooNew
from runner.store import query, work_list
from runner.store.lock import holder_of
from runner.store.store import Store
from tests.store.jobs import make_spec, sync_jobs


def test_second_opening_is_refused_and_names_the_holder(store: Store) -> None:
    """
    A run directory in use is refused, and the message names the process that uses it.
    """
    with pytest.raises(RunLocked, match=f"in use by pid {os.getpid()} on host "), Store(store.run_dir):
        pass

    assert "pid" in (holder_of(store.run_dir) or "")


def test_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """
    The lock of a killed process is released.
    """
    script = (
        "import sys, time; from pathlib import Path; from runner.store.store import Store\n"
        "with Store(Path(sys.argv[1])): print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"open\n" == process.stdout.readline()
        with pytest.raises(RunLocked), Store(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()

    with Store(tmp_path) as store:
        assert query.meta(store.reader).get("anything") is None


def test_results_without_a_database_are_refused(tmp_path: Path) -> None:
    """
    With results but no run.db nothing may start, because it is unknown what was paid for.
    """
    (tmp_path / "results.jsonl").write_text("{}\n")

    with pytest.raises(StoreMissing, match="no run.db") as caught, Store(tmp_path):
        pass

    assert f"runner rerun {tmp_path}/results.jsonl -o NEW" in str(caught.value.hint)


def test_damaged_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """
    A database with overwritten pages is refused, and not a byte of it changes.
    """
    with Store(tmp_path) as store:
        sync_jobs(store, *(make_spec(f"job-{n}", n) for n in range(100)))
    path = tmp_path / DB_NAME
    content = bytearray(path.read_bytes())
    content[4096 : 3 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(content)

    with pytest.raises(StoreDamaged), Store(tmp_path):
        pass

    assert bytes(content) == path.read_bytes()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 100, b"x"])
def test_file_that_is_not_a_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """
    Any other file named run.db is refused and left as it is.
    """
    (tmp_path / DB_NAME).write_bytes(content)

    with pytest.raises(StoreDamaged), Store(tmp_path):
        pass

    assert content == (tmp_path / DB_NAME).read_bytes()


def test_newer_format_is_refused(tmp_path: Path) -> None:
    """
    A database of a later format is not touched by this version.
    """
    with Store(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / DB_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StoreTooNew, match="format 99"), Store(tmp_path):
        pass


async def test_database_of_an_earlier_format_is_used_as_it_is(tmp_path: Path) -> None:
    """
    A run that an earlier version began can be continued, and that version can still open it.
    """
    with Store(tmp_path) as store:
        sync_jobs(store, make_spec("a"))
    connection = sqlite3.connect(tmp_path / DB_NAME)
    connection.executescript("CREATE TABLE events (id INTEGER PRIMARY KEY); PRAGMA user_version = 1")
    connection.close()

    with Store(tmp_path) as store:
        job = query.job(store.reader, "a", waiting_since=0.0)
        assert job is not None
        async with store:
            job.state = advance(job.state, Event.INTENT)
            await store.durable(store.save(job))

        assert 1 == query.counts(store.reader)[State.SUBMITTING]
        assert (1,) == store.reader.execute("PRAGMA user_version").fetchone()


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """
    A path below a file is an error of the run directory, not a traceback.
    """
    (tmp_path / "file").write_text("")

    with pytest.raises(RunDirError, match="can't be written"), Store(tmp_path / "file" / "run"):
        pass


async def test_saved_job_is_read_back_whole(store: Store) -> None:
    """
    Once it is durable, a reader sees exactly what was saved of a job, its attempt and its assets.
    """
    sync_jobs(store, make_spec("a"))
    job = next(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0))
    asset = Asset(AssetKind.VIDEO, "assets/a.mp4", 10, "ab", "video/mp4", 1280, 720, 5.0)
    failure = Failure(FailureClass.INTERNAL, "小猫", "E1", 500, "req-1")

    async with store:
        job.state = advance(job.state, Event.INTENT)
        job.attempt, job.error, job.warnings = 1, failure, ("one", "two")
        number = store.save(job, Attempt(1, 5.0, "pending", key="k"), [asset])
        await store.durable(number)
        record = next(query.records(store.reader))

    assert (State.SUBMITTING, failure, ("one", "two")) == (record.state, record.error, record.warnings)
    assert (Attempt(1, 5.0, "pending", key="k"),) == record.attempts
    assert (asset,) == record.assets


async def test_closing_writes_what_is_pending(store: Store) -> None:
    """
    Changes that nobody waited for are on disk when the store closes.
    """
    sync_jobs(store, *(make_spec(f"job-{n}", n) for n in range(20)))
    jobs = list(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0))

    async with store:
        for job in jobs:
            job.state = advance(job.state, Event.INTENT)
            store.save(job)

    assert 20 == query.counts(store.reader)[State.SUBMITTING]


async def test_full_disk_releases_the_reserve_and_loses_nothing(store: Store) -> None:
    """
    When the disk is full, changes still reach the disk, and the store says that the disk is full.
    """
    sync_jobs(store, make_spec("a"))
    job = next(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0))

    async with store:
        # SQLite's own limit of pages acts as the full disk; releasing the reserve raises it.
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        release = store._reserve.release

        def raise_limit() -> bool:
            store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
            return release()

        store._reserve.release = raise_limit
        number = store.save(job, Attempt(1, 5.0, "accepted", task_id="t" * 50_000))
        await store.durable(number)

        assert store.is_disk_full
        assert not (store.run_dir / RESERVE_NAME).exists()

    assert ["t" * 50_000] == [a.task_id for a in next(query.records(store.reader)).attempts]


async def test_disk_that_stays_full_is_an_error_for_every_caller(store: Store) -> None:
    """
    If even the reserve does not help, whoever waits gets the error, and what was durable remains.
    """
    sync_jobs(store, make_spec("a"))
    job = next(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0))

    async with store:
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        number = store.save(job, Attempt(1, 5.0, "accepted", task_id="t" * 50_000))

        with pytest.raises(DiskFull, match="no space left to write"):
            await store.durable(number)
        with pytest.raises(DiskFull):
            store.save(job)

    assert 1 == query.counts(store.reader)[State.PENDING]


def test_reader_of_an_active_run_leaves_its_log(store: Store) -> None:
    """
    Another process that reads run.db and ends does not delete the log of the process that writes it: a commit to
    a deleted log would be lost at the next start, and with it the id of a task that was paid for.
    """
    script = (
        "import sys; from pathlib import Path; from runner.store import query\n"
        "from runner.store.database import connect_reader\n"
        "reader = connect_reader(Path(sys.argv[1]))\n"
        "print(sum(query.counts(reader).values()), end='')\nreader.close()"
    )

    def count_in_another_process() -> str:
        return subprocess.run(
            [sys.executable, "-c", script, str(store.run_dir)], capture_output=True, text=True, check=True
        ).stdout

    sync_jobs(store, make_spec("a"))
    before = count_in_another_process()
    sync_jobs(store, make_spec("a"), make_spec("b", 1))

    assert ("1", "2") == (before, count_in_another_process())
    assert (store.run_dir / f"{DB_NAME}-wal").exists()
