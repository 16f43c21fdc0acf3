"""A run.db that is older than its directory is refused, and no other is."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Attempt, JobRecord
from runner.errors import StoreMissing, StoreOutdated
from runner.results.formats import line_bytes
from runner.store import query
from runner.store.store import Store
from tests.store.jobs import make_spec, sync_jobs


def make_store(run_dir: Path, *job_ids: str) -> Path:
    """Make a run directory with these jobs, all pending."""
    with Store(run_dir) as store:
        sync_jobs(store, *(make_spec(job_id, n) for n, job_id in enumerate(job_ids)))
    return run_dir


async def submit(store: Store, job_id: str) -> None:
    """Save the intent of a job's submission and its answer."""
    job = query.job(store.reader, job_id, waiting_since=0.0)
    assert job is not None
    job.attempt += 1
    job.state = advance(job.state, Event.INTENT)
    await store.durable(store.save(job, Attempt(job.attempt, 5.0, "pending")))
    job.state = advance(job.state, Event.ACCEPTED)
    job.task_id = f"task_{job_id}"
    await store.durable(store.save(job, Attempt(job.attempt, 5.0, "accepted", job.task_id)))


def write_result(run_dir: Path, job_id: str, *, number: int = 1, outcome: str = "accepted") -> None:
    """Append a result line with one attempt."""
    spec = make_spec(job_id)
    record = JobRecord(
        job_id,
        0,
        spec.model,
        spec.schema,
        spec.request,
        spec.digest,
        {},
        State.SUBMITTED,
        attempts=(Attempt(number, 5.0, outcome),),
    )
    with (run_dir / "results.jsonl").open("ab") as file:
        file.write(line_bytes(record, run="kittens", gateway="https://api.example.com"))


def in_killed_process(run_dir: Path, work: Callable[[Store], object]) -> None:
    """Do something with an open store in a process that is killed then."""
    child = os.fork()
    if child == 0:
        try:
            store = Store(run_dir).__enter__()
            work(store)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def submit_and_die(run_dir: Path, job_id: str) -> None:
    """Submit a job in a process that is killed then."""

    def work(store: Store) -> None:
        async def main() -> None:
            async with store:
                await submit(store, job_id)
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())

    in_killed_process(run_dir, work)


def assert_refused(run_dir: Path, why: str) -> None:
    """Check that a run directory is refused and its database left as it is."""
    before = (run_dir / "run.db").read_bytes()
    with pytest.raises(StoreOutdated, match=why) as caught, Store(run_dir):
        pass
    assert f"runner resume {run_dir} --adopt-results" in str(caught.value.hint)
    assert before == (run_dir / "run.db").read_bytes()


def test_older_database_is_refused(tmp_path: Path) -> None:
    """
    A backup of run.db from before the last opening is refused, by the number beside it alone.
    """
    run_dir = make_store(tmp_path / "run", "a")
    shutil.copy(run_dir / "run.db", tmp_path / "backup")
    make_store(run_dir, "a")
    shutil.copy(tmp_path / "backup", run_dir / "run.db")

    assert_refused(run_dir, "lacks the last changes")


def test_lost_log_is_refused(tmp_path: Path) -> None:
    """
    A process was killed, and somebody tidied up run.db-wal, which has what it did.
    """
    run_dir = make_store(tmp_path / "run", "a")
    submit_and_die(run_dir, "a")
    (run_dir / "run.db-wal").unlink()

    assert_refused(run_dir, "lacks the last changes")


def test_log_of_a_refused_database_is_left(tmp_path: Path) -> None:
    """
    The log is not written to a database that it may not belong to.
    """
    run_dir = make_store(tmp_path / "run", "a")
    submit_and_die(run_dir, "a")
    (run_dir / ".epoch").write_bytes(b"%019d\n" % 99)
    log = (run_dir / "run.db-wal").read_bytes()

    assert_refused(run_dir, "lacks the last changes")

    assert log == (run_dir / "run.db-wal").read_bytes()


def test_log_that_another_program_wrote_back_is_not_missed(tmp_path: Path) -> None:
    """
    Whoever opens the database of a killed process last writes its log back and deletes it: nothing is lost then.
    """
    run_dir = make_store(tmp_path / "run", "a")
    submit_and_die(run_dir, "a")
    with closing(sqlite3.connect(run_dir / "run.db")) as connection:
        connection.execute("SELECT count(*) FROM jobs").fetchone()
    assert not (run_dir / "run.db-wal").exists()

    with Store(run_dir) as store:
        assert 1 == query.counts(store.reader)[State.SUBMITTED]


async def test_backup_from_the_middle_of_a_run_is_refused(tmp_path: Path) -> None:
    """
    Each commit of a run counts, not only each opening.
    """
    run_dir = make_store(tmp_path / "run", "a", "b")
    with Store(run_dir) as store:
        async with store:
            await submit(store, "a")
            with closing(sqlite3.connect(tmp_path / "backup")) as backup:
                store.reader.backup(backup)
            await submit(store, "b")
    shutil.copy(tmp_path / "backup", run_dir / "run.db")

    assert_refused(run_dir, "lacks the last changes")


def test_results_that_the_database_does_not_know_are_evidence(tmp_path: Path) -> None:
    """
    Where the file with the number was lost too, a paid attempt in the results tells.
    """
    run_dir = make_store(tmp_path / "run", "a", "b")
    (run_dir / ".epoch").unlink()
    write_result(run_dir, "b")

    assert_refused(run_dir, "has an attempt at job 'b' that is not in it")


def test_results_of_a_job_that_the_database_lacks_are_evidence(tmp_path: Path) -> None:
    """
    A job that the manifest got since the backup is not in the database at all.
    """
    run_dir = make_store(tmp_path / "run", "a")
    write_result(run_dir, "new")

    assert_refused(run_dir, "has an attempt at job 'new' that is not in it")


@pytest.mark.parametrize("outcome", ["rejected", "throttled", "not_sent", "no_channel", "refused"])
def test_attempts_without_a_task_are_not_evidence(outcome: str, tmp_path: Path) -> None:
    """
    An attempt that made no task does not count, since the next one may have its number.
    """
    run_dir = make_store(tmp_path / "run", "a")
    write_result(run_dir, "a", outcome=outcome)

    with Store(run_dir):
        pass


async def test_known_attempts_are_not_evidence(tmp_path: Path) -> None:
    """
    A failed job that is to be submitted again is pending, and its results have the attempt that failed.
    """
    run_dir = make_store(tmp_path / "run", "a")
    with Store(run_dir) as store:
        async with store:
            await submit(store, "a")
        with store.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'pending', task_id = NULL")
    write_result(run_dir, "a")

    with Store(run_dir):
        pass
    write_result(run_dir, "a", number=2)
    assert_refused(run_dir, "has an attempt at job 'a'")


@pytest.mark.parametrize("name", ["assets/a.mp4", "assets/05/a.mp4.part", "assets/B~df7e70e5021544f4.mp4"])
def test_assets_of_jobs_that_were_never_sent_are_evidence(name: str, tmp_path: Path) -> None:
    """
    A file of a job that was not submitted, by the database, was paid for.
    """
    run_dir = make_store(tmp_path / "run", "a", "B")
    path = run_dir / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")

    assert_refused(run_dir, f"assets/ has a file of job '{path.name[0]}'")


async def test_foreign_assets_are_not_evidence(tmp_path: Path) -> None:
    """
    Files of no job, and of jobs that were submitted, say nothing.
    """
    run_dir = make_store(tmp_path / "run", "a")
    with Store(run_dir) as store:
        async with store:
            await submit(store, "a")
    (run_dir / "assets").mkdir()
    for name in ("a.mp4", "notes.txt", "x~1.mp4"):
        (run_dir / "assets" / name).write_bytes(b"x")

    with Store(run_dir):
        pass


def test_results_are_read_only_if_they_changed(tmp_path: Path) -> None:
    """
    Results as the last process left them need no look: a run of a million jobs has a gigabyte of them.
    """
    run_dir = make_store(tmp_path / "run", "a")
    write_result(run_dir, "b")
    with Store(run_dir, is_adopted=True) as store:
        store.mark_finished([])

    with Store(run_dir):
        pass
    write_result(run_dir, "c")
    assert_refused(run_dir, "job 'b'")


def test_empty_database_beside_results_is_refused(tmp_path: Path) -> None:
    """
    Without its log, the database of a new run has no tables at all.
    """
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    write_result(tmp_path, "a")

    assert_refused(tmp_path, "it is empty")


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_directory_without_its_database_is_refused(is_there: bool, tmp_path: Path) -> None:
    """
    A directory that had a run.db was paid for, even if nothing else is left in it.
    """
    run_dir = make_store(tmp_path / "run", "a")
    (run_dir / "run.db").unlink()
    if is_there:
        (run_dir / "run.db").touch()

    with pytest.raises(StoreMissing, match="the run.db of .* is gone"), Store(run_dir):
        pass

    assert is_there == (run_dir / "run.db").exists()
    (run_dir / ".epoch").unlink()
    with Store(run_dir):
        pass


def test_a_database_without_an_epoch_is_older_than_one_that_was_counted(tmp_path: Path) -> None:
    """A copy from before the first run is refused, however short that run was."""
    run_dir = make_store(tmp_path / "run", "a")
    with closing(sqlite3.connect(run_dir / "run.db")) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'epoch'")
        connection.commit()
    (run_dir / ".epoch").write_bytes(b"%019d\n" % 1)

    assert_refused(run_dir, "lacks the last changes")


@pytest.mark.parametrize("content", [b"", b"no number\n", b"{}", b"9" * 5000])
def test_damaged_epoch_says_nothing(content: bytes, tmp_path: Path) -> None:
    """
    A file that is empty or has no such number is as good as none.
    """
    run_dir = make_store(tmp_path / "run", "a")
    (run_dir / ".epoch").write_bytes(content[:19] if content.isdigit() else content)
    if content.isdigit():
        assert_refused(run_dir, "lacks the last changes")
        return

    with Store(run_dir):
        pass


def test_names_above_a_new_directory_are_synced_before_it_can_be_used(tmp_path: Path) -> None:
    """
    If a power cut removed a folder above the database, everything would be paid for again.
    """
    seen: set[str] = set()
    is_recording = True

    def record(event: str, args: tuple[object, ...]) -> None:
        if is_recording and event == "open":
            seen.add(str(args[0]))

    # It can't be removed again, only told to do nothing.
    sys.addaudithook(record)
    with Store(tmp_path / "p" / "q" / "run"):
        is_recording = False

    assert {str(tmp_path / "p" / "q"), str(tmp_path / "p"), str(tmp_path)} <= seen
