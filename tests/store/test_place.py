"""Where a run directory is: of a directory and its copy one continues, and a move is not a copy."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.core.lifecycle import Event, advance
from runner.core.model import Attempt
from runner.errors import RunDirError, RunLocked
from runner.store import query, work_list
from runner.store.lock import RETIRED, Place
from runner.store.store import Store
from runner.store.work_list import JobFilter
from tests.store.jobs import make_spec, sync_jobs


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Make a run directory that knows where it is."""
    path = tmp_path / "original"
    with Store(path) as store:
        sync_jobs(store, make_spec("job-0", 0), make_spec("job-1", 1))
        store.note_place()
    return path


def note(run_dir: Path) -> Place | None:
    """Open a run directory, as each command does that may submit."""
    with Store(run_dir) as store:
        return store.note_place()


def require(run_dir: Path) -> None:
    """Check that a run directory may submit."""
    with Store(run_dir) as store:
        store.note_place()
        store.require_only()


def submit(run_dir: Path) -> None:
    """Continue with a run: submit its next job."""
    with Store(run_dir) as store:
        store.note_place()
        store.require_only()
        asyncio.run(save_attempt(store))


async def save_attempt(store: Store) -> None:
    """Save an attempt at the next job."""
    found = work_list.pending(
        store.reader, "wan2.7-i2v", after=(-1, -1), count=1, scope=JobFilter(), waiting_since=0.0
    )
    async with store:
        job = found[0][0]
        job.attempt += 1
        job.state = advance(job.state, Event.INTENT)
        store.save(job, Attempt(job.attempt, 1.0, "pending"))
        job.state = advance(job.state, Event.ACCEPTED)
        store.save(job, Attempt(job.attempt, 1.0, "accepted", f"task-of-{job.job_id}"))


@pytest.mark.parametrize("first", ["original", "copy"])
def test_the_one_that_goes_on_first_is_the_run(first: str, original: Path, tmp_path: Path) -> None:
    """
    From then on the other one is refused, and has done nothing.
    """
    shutil.copytree(original, tmp_path / "copy")
    second = {"original": "copy", "copy": "original"}[first]
    require(tmp_path / "copy")
    require(original)

    submit(tmp_path / first)

    with pytest.raises(RunDirError, match=f"the same run continues in {tmp_path / first}: both would pay"):
        submit(tmp_path / second)
    submit(tmp_path / first)


def test_a_copy_goes_on_once_its_original_is_gone(original: Path, tmp_path: Path) -> None:
    """
    What the original paid for last is not known then, so there is a warning.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    submit(original)
    shutil.rmtree(original)

    known = note(copy)

    assert known is not None
    assert str(original) == known.path
    submit(copy)
    assert note(copy) is None


def test_neither_goes_on_while_the_other_is_in_use(original: Path, tmp_path: Path) -> None:
    """
    Nobody can know what that one is about to submit.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)

    with (original / ".lock").open("rb") as held:
        # As another process does.
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunDirError, match=f"the same run continues in {original}"):
            submit(copy)


def test_of_two_copies_of_one_directory_one_is_the_run(original: Path, tmp_path: Path) -> None:
    """
    The original, which was left alone, knows the one that went on.
    """
    for name in ("first", "second"):
        shutil.copytree(original, tmp_path / name)
    submit(tmp_path / "first")

    for name in ("second", "original"):
        with pytest.raises(RunDirError, match=f"the same run continues in {tmp_path / 'first'}"):
            submit(tmp_path / name)


def test_a_copy_of_a_directory_that_was_merged_is_refused(original: Path, tmp_path: Path) -> None:
    """
    Its jobs continue where it was merged.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with Store(original) as store, store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RETIRED, str(tmp_path / "whole")))

    with pytest.raises(RunDirError, match=f"the same run continues in {original}"):
        submit(copy)


def test_a_merge_that_was_cut_off_is_to_be_repeated(original: Path, tmp_path: Path) -> None:
    """
    What it was to make is not there, so nothing can continue there.
    """
    with Store(original) as store, store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RETIRED, str(tmp_path / "whole")))

    with pytest.raises(RunDirError, match="was merged into") as refused, Store(original):
        pass

    assert "run the same runner merge again" in (refused.value.hint or "")


def test_copy_in_the_place_of_its_original_goes_on(original: Path, tmp_path: Path) -> None:
    """
    A copy that was refused, and then takes the place of what it was copied from, is that run.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    submit(original)
    with pytest.raises(RunDirError):
        submit(copy)
    shutil.rmtree(original)
    copy.rename(original)

    submit(original)


def test_a_move_is_not_a_copy(original: Path, tmp_path: Path) -> None:
    """
    On one disk a moved directory has the same files: nothing is warned about, and another run may take its place.
    """
    moved = tmp_path / "moved"
    original.rename(moved)
    note(original)

    assert note(moved) is None
    require(moved)


def test_other_paths_of_one_directory_are_not_copies(original: Path, tmp_path: Path) -> None:
    """
    A link; and a mount that shows the same files as others, where the lock has what this process wrote into it.
    """
    link, mount = tmp_path / "link", tmp_path / "mount"
    link.symlink_to(original)

    assert note(link) is None
    require(link)
    shutil.copytree(original, mount)
    with Store(mount) as store:
        shutil.copy(mount / ".lock", original / ".lock")
        store.note_place()
        store.require_only()


@pytest.mark.parametrize("name", ["run.db", ".lock"])
def test_what_is_at_the_old_place_does_not_block(name: str, original: Path, tmp_path: Path) -> None:
    """
    The old path may be anything, as that of a directory from somebody else.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    (original / name).unlink()
    os.mkfifo(original / name)

    note(copy)

    require(copy)


@pytest.mark.extended
def test_a_copy_waits_for_what_its_original_says(original: Path, tmp_path: Path) -> None:
    """
    Another program that has locked the original hides whether it is still the run: the copy does not begin.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with closing(sqlite3.connect(original / "run.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunLocked, match="in use by another program"):
            note(copy)


def test_a_damaged_place_is_none(original: Path) -> None:
    """
    A place that can't be read is written anew.
    """
    with Store(original) as store, store.transaction() as connection:
        connection.execute("UPDATE meta SET value = '[1]' WHERE key = 'place'")

    assert note(original) is None
    with Store(original) as store:
        assert str(original) in (query.meta(store.reader).get("place") or "")
