"""One process at a time in a run directory, whatever happens to the file that says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Job
from runner.core.outcomes import PollOutcome, SubmitOutcome
from runner.engine.context import SystemClock
from runner.errors import RunDirError, RunLocked, StoreOutdated
from runner.store import query, work_list
from runner.store.local_view import remembered_journal
from runner.store.lock import RunLock, holder_of
from runner.store.store import Store
from runner.worker.submit import Submitter
from tests.engine.fakes import FakeKeys
from tests.store.jobs import make_spec, sync_jobs

HOLDER = (
    "import sys; from pathlib import Path; from runner.store.store import Store\n"
    # A process may have a name that is not UTF-8.
    "name = Path('/proc/self/comm'); name.exists() and name.write_bytes(bytes([0xe9]))\n"
    "with Store(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
)


@contextmanager
def opened_elsewhere(run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Open a run directory in another process, for the length of a block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"open\n" == process.stdout.readline()
        yield process
        process.kill()


class NoApi:
    """An API that nothing may be sent to."""

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        raise AssertionError("sent")

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        raise AssertionError("polled")

    poll_afresh = poll


def pending_job(store: Store) -> Job:
    """Return the only job of a store."""
    return next(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0))


def test_deleted_lock_file_lets_nobody_in(tmp_path: Path) -> None:
    """
    People delete a lock file that is in their way: the database itself is locked as well.
    """
    with opened_elsewhere(tmp_path):
        (tmp_path / ".lock").unlink()

        with pytest.raises(RunLocked, match="whose .lock was deleted"), Store(tmp_path):
            pass


def times_open(path: Path) -> int:
    """Count the descriptors of this process for a file."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += str(path) == os.readlink(f"/proc/self/fd/{name}")
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_lock_of_a_file_that_its_holder_deleted_lets_nobody_in(tmp_path: Path) -> None:
    """
    A run that is refused deletes what it created; who waited for it has the lock of nothing, and may try again.
    """

    def open_store() -> None:
        with Store(tmp_path):
            pass

    with ThreadPoolExecutor(1) as pool:
        with RunLock(tmp_path):
            second = pool.submit(open_store)
            while times_open(tmp_path / ".lock") < 2 and not second.done():
                pass
            (tmp_path / ".lock").unlink()
        with pytest.raises(RunLocked):
            second.result()
    open_store()


def test_directory_that_was_deleted_meanwhile_is_one_in_use(tmp_path: Path) -> None:
    """
    Then another process was in it a moment ago, and the same command can be repeated.
    """
    with pytest.raises(RunLocked, match="deleted"), RunLock(tmp_path / "gone"):
        pass


@pytest.mark.slow
def test_copy_of_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """
    A copied lock is free, but names a process that is running: both would pay for the same jobs.
    """
    original, copy = tmp_path / "original", tmp_path / "copy"
    with opened_elsewhere(original) as process:
        shutil.copytree(original, copy)

        with (
            pytest.raises(StoreOutdated, match=f"a copy of a run directory that pid {process.pid}"),
            Store(copy),
        ):
            pass

    with Store(copy):
        pass


def test_killed_process_that_nobody_waited_for_is_not_a_holder(tmp_path: Path) -> None:
    """
    Until its parent notices, a killed process still has its pid.
    """
    with opened_elsewhere(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        with Store(tmp_path):
            pass


def test_copy_of_a_closed_directory_is_used(tmp_path: Path) -> None:
    """
    A process that has closed a run directory, and is still running, has no claim on its copies.
    """
    with Store(tmp_path / "original"):
        pass
    shutil.copytree(tmp_path / "original", tmp_path / "copy")

    with Store(tmp_path / "copy"):
        pass


@pytest.mark.parametrize("name", [".lock", "run.db"])
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_planted_link_is_refused(name: str, plant: object, tmp_path: Path) -> None:
    """
    A link in a directory from somebody else leads to a file outside, which stays as it is.
    """
    victim, run_dir = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    run_dir.mkdir()
    plant(victim, run_dir / name)  # type: ignore[operator]

    with pytest.raises(RunDirError, match="can't be used: it"), Store(run_dir):
        pass

    assert "mine" == victim.read_text()


def test_special_file_does_not_hang(tmp_path: Path) -> None:
    """
    A FIFO as the lock is refused, and is nobody's lock, at once.
    """
    os.mkfifo(tmp_path / ".lock")

    with pytest.raises(RunDirError, match="not a regular file"), Store(tmp_path):
        pass

    assert holder_of(tmp_path) is None


def test_reserve_and_epoch_are_not_links(tmp_path: Path) -> None:
    """
    Links at the names of files that the run creates are replaced; what they lead to stays as it is.
    """
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".epoch").symlink_to(victim)

    with Store(tmp_path):
        pass

    assert "mine" == victim.read_text()
    assert not (tmp_path / ".epoch").is_symlink()


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symbolic", "hard"])
async def test_reserve_overwrites_nothing(plant: object, store: Store, tmp_path: Path) -> None:
    """
    The reserve of disk space is a new file, whatever has its name.
    """
    victim = tmp_path / "victim"
    victim.write_text("mine")
    plant(victim, store.run_dir / ".reserve")  # type: ignore[operator]

    async with store:
        assert (store.run_dir / ".reserve").stat().st_size > 1_000_000

    assert "mine" == victim.read_text()


async def test_folder_instead_of_the_reserve_is_an_error(store: Store) -> None:
    """
    What can't be replaced is named, before anything is sent.
    """
    (store.run_dir / ".reserve").mkdir()

    with pytest.raises(RunDirError, match=r".reserve can't be written"):
        await store.__aenter__()


def test_moved_directory_is_noticed(tmp_path: Path) -> None:
    """
    Before anything is paid for, the directory must still be at its path; a link to its new place will do.
    """
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with Store(run_dir) as store:
        store.require_in_place(1)
        run_dir.rename(elsewhere)
        with pytest.raises(RunDirError, match="was moved, replaced or deleted"):
            store.require_in_place(2)
        run_dir.mkdir()
        (run_dir / "run.db").touch()
        with pytest.raises(RunDirError, match="was moved, replaced or deleted"):
            store.require_in_place(3)
        (run_dir / "run.db").unlink()
        run_dir.rmdir()
        run_dir.symlink_to(elsewhere)
        store.require_in_place(4)


async def test_nothing_is_sent_once_the_directory_was_moved(store: Store, tmp_path: Path) -> None:
    """
    A job stays pending if the directory is not at its path any more.
    """
    sync_jobs(store, make_spec("a"))
    job = pending_job(store)
    async with store:
        store.run_dir.rename(tmp_path / "moved")
        with pytest.raises(RunDirError, match="was moved"):
            await Submitter(NoApi(), FakeKeys("a"), store, SystemClock()).submit(job, b"{}", "a")

    assert (State.PENDING, 0) == (job.state, job.attempt)


async def test_intent_of_a_job_that_another_process_took_is_refused(store: Store) -> None:
    """
    Even if two processes were at work, only a pending job can be submitted; and nothing else is written then.
    """
    sync_jobs(store, make_spec("a"))
    job = pending_job(store)
    async with store:
        store._connection.execute("UPDATE jobs SET state = 'submitted', task_id = 'theirs'")
        job.state = advance(job.state, Event.INTENT)

        with pytest.raises(RunDirError, match="another process has changed jobs"):
            await store.durable(store.save(job))

    found = query.job(store.reader, "a", waiting_since=0.0)
    assert found is not None
    assert (State.SUBMITTED, "theirs") == (found.state, found.task_id)


async def test_intent_may_follow_an_attempt_that_was_not_sent_at_once(store: Store) -> None:
    """
    The end of one attempt and the intent of the next may be in the same commit.
    """
    sync_jobs(store, make_spec("a"))
    job = pending_job(store)
    async with store:
        job.state = advance(job.state, Event.INTENT)
        await store.durable(store.save(job))
        job.state = advance(job.state, Event.NOT_SENT)
        store.save(job)
        job.state = advance(job.state, Event.INTENT)
        await store.durable(store.save(job))

    assert 1 == query.counts(store.reader)[State.SUBMITTING]


@pytest.mark.parametrize("what", ["nothing", "the writer", "results", "an attempt"])
async def test_only_a_run_that_did_nothing_is_undone(what: str, tmp_path: Path) -> None:
    """An error deletes the directory that it is the end of, unless something was or may have been done in it."""
    run_dir = tmp_path / "run"
    with suppress(KeyError), Store(run_dir) as store:
        sync_jobs(store, make_spec("a"))
        if what == "the writer":
            async with store:
                pass
        elif what == "results":
            (run_dir / "results.jsonl").touch()
        elif what == "an attempt":
            with store.transaction() as connection:
                connection.execute("UPDATE jobs SET attempt = 1")
        raise KeyError

    assert (what != "nothing") == (run_dir / "run.db").exists() == run_dir.exists()


REFUSED = (
    "import sys; from pathlib import Path; from runner.errors import RunLocked; from runner.store.store import Store\n"
    "for number in range(1000, 1500):\n"
    "    try:\n"
    "        with Store(Path(sys.argv[1], str(number))): raise KeyError\n"
    "    except (KeyError, RunLocked): pass\n"
)


@pytest.mark.extended
def test_a_directory_that_another_process_takes_back(tmp_path: Path) -> None:
    """Who looks at a directory that another process creates, and deletes when its run is refused, sees no run or a lock."""
    with subprocess.Popen([sys.executable, "-c", REFUSED, str(tmp_path)]) as process:
        while process.poll() is None:
            for run_dir in sorted(tmp_path.iterdir())[-1:]:
                assert [None] * 20 == [remembered_journal(run_dir) for _ in range(20)]
                with suppress(RunLocked), Store(run_dir):
                    pass

    assert 0 == process.returncode
