"""What a run writes, together: in which commits, and what becomes of what is superseded."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from runner.core.filenames import DB_NAME, RESERVE_NAME
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Job
from runner.errors import DiskFull, RunDirError
from runner.store import query, work_list
from runner.store.store import Store
from runner.store.writer import RESERVE_BYTES, DiskReserve
from tests.store.jobs import make_spec, sync_jobs

FACTS = {"total_bytes": 7, "validator": None}


def jobs(store: Store, count: int = 1) -> list[Job]:
    """Take jobs in, and give them as the engine has them."""
    sync_jobs(store, *(make_spec(f"job-{n}", n) for n in range(count)))
    return list(work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=0.0))


async def test_what_nobody_waits_for_is_committed_all_the_same(store: Store) -> None:
    """A change is on disk soon after, without a word."""
    (job,) = jobs(store)
    async with store:
        job.polls = 5
        store.save(job)
        async with asyncio.timeout(10):
            while next(query.records(store.reader)).polls != 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_what_nobody_waits_for_is_committed_with_the_next_change(store: Store) -> None:
    """The thread that has committed once does not commit again until it is asked to."""
    first, second = jobs(store, 2)
    async with store:
        writer = store._writer
        assert writer is not None
        writer._linger_s = 600.0
        await store.durable(store.save(first))
        number = store.save(first)
        # The thread has every chance to begin too early.
        await asyncio.to_thread(time.sleep, 0.02)

        assert number == store.save(second)
        await store.durable(number)


async def test_changes_of_one_turn_share_a_commit(store: Store) -> None:
    """However many jobs change at once, and however often: each is written once, as it was last."""
    many = jobs(store, 70)
    async with store:
        for polls in (1, 2):
            for job in many:
                job.polls = polls
                number = store.save(job, Attempt(1, 5.0, f"outcome {polls}"))
        await store.durable(number)

    found = list(query.records(store.reader))
    assert {1} == {job.commit for job in many}
    assert [2] * 70 == [record.polls for record in found]
    assert [(Attempt(1, 5.0, "outcome 2"),)] * 70 == [record.attempts for record in found]


async def test_waiters_of_one_turn_share_a_commit(store: Store) -> None:
    """The thread begins after all that happens in a turn of the event loop, even if it could have begun before."""
    first, second = jobs(store, 2)

    async def save(job: Job) -> int:
        number = store.save(job)
        await store.durable(number)
        return number

    async def save_while_the_thread_may_run() -> int:
        # Blocks the turn, so that a commit that was requested in it would have begun.
        time.sleep(0.05)  # noqa: ASYNC251
        return await save(second)

    async with store:
        assert [1, 1] == await asyncio.gather(save(first), save_while_the_thread_may_run())


async def test_change_of_a_later_turn_is_another_commit(store: Store) -> None:
    """What is not on disk yet has a higher number than what is, so that waiting for it waits."""
    first, second = jobs(store, 2)
    async with store:
        await store.durable(store.save(first))
        number = store.save(second)

        assert (1, 2) == (first.commit, number)


async def test_finished_download_is_not_a_part_any_more(store: Store) -> None:
    """What was known of the part goes with the commit that has the asset, of that kind and job alone."""
    job, other = jobs(store, 2)
    job.attempt = other.attempt = 1
    async with store:
        for kind in (AssetKind.VIDEO, AssetKind.LAST_FRAME):
            store.save_part(job, kind, FACTS)
        store.save_part(other, AssetKind.VIDEO, FACTS)
        await store.durable(store.save(job))
        assert {"video": FACTS, "last_frame": FACTS} == store.load_parts(job)

        await store.durable(store.save(job, assets=[Asset(AssetKind.VIDEO, "a.mp4", 1, "0", "video/mp4")]))

        assert ({"last_frame": FACTS}, {"video": FACTS}) == (store.load_parts(job), store.load_parts(other))


async def test_facts_about_the_run_are_kept(store: Store) -> None:
    """The last word on a key counts, and is on disk when the run ends."""
    async with store:
        store.set_meta("rate", "1")
        store.set_meta("rate", "2")

    assert "2" == query.meta(store.reader).get("rate")


async def test_store_that_is_not_open_for_a_run_takes_no_changes(store: Store) -> None:
    """Nothing is lost in a queue that nobody writes, before a run or after it."""
    (job,) = jobs(store)
    with pytest.raises(AttributeError):
        store.save(job)
    async with store:
        pass

    with pytest.raises(AttributeError):
        store.save(job)


async def test_thread_ends_with_the_run(store: Store) -> None:
    """A program that runs one manifest after another keeps nothing of the first."""
    before = threading.active_count()
    async with store:
        assert before < threading.active_count()

    assert "store-writer" not in {thread.name for thread in threading.enumerate()}


async def test_caller_that_gives_up_does_not_hold_up_the_others(store: Store) -> None:
    """Of several that wait for one commit, one may be cancelled."""
    (job,) = jobs(store)
    async with store:
        number = store.save(job)
        waiting = [asyncio.ensure_future(store.durable(number)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)

    assert [type(None), asyncio.CancelledError, type(None)] == [type(end) for end in ends]


async def test_failure_of_one_commit_fails_all_that_wait_and_all_that_follow(store: Store) -> None:
    """Nothing of the failed commit is on disk, and the run hears of it everywhere."""
    good, bad = jobs(store, 2)
    async with store:
        assert store.error is None
        good.polls, bad.remote_status = 9, "\ud800"
        store.save(good)
        number = store.save(bad)
        waiting = [asyncio.ensure_future(store.durable(number)) for _ in range(2)]
        ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        with pytest.raises(RunDirError):
            await store.durable(number)

    assert [RunDirError, RunDirError] == [type(end) for end in ends]
    assert 0 == next(query.records(store.reader)).polls


async def test_room_is_set_aside_only_while_a_run_is_going(store: Store) -> None:
    """It is there when the disk is full, and not in anybody's way afterwards."""
    path = store.run_dir / RESERVE_NAME
    async with store:
        status = path.stat()
        assert RESERVE_BYTES == status.st_size
        assert RESERVE_BYTES <= 512 * status.st_blocks
        assert not store.is_disk_full

    assert not path.exists()


def test_room_is_given_up_once(tmp_path: Path) -> None:
    """A second full disk finds nothing to free."""
    reserve = DiskReserve(tmp_path)

    assert [True, False] == [reserve.release(), reserve.release()]
    assert reserve.is_released
    assert not (tmp_path / RESERVE_NAME).exists()


async def test_room_that_can_not_be_given_up_is_an_error_for_every_caller(store: Store) -> None:
    """Where a disk fails altogether, whoever waits for a commit gets its error, and nobody waits forever."""
    (job,) = jobs(store)
    async with store:
        # A folder can't be deleted as a file can.
        path = store.run_dir / RESERVE_NAME
        path.unlink()
        path.mkdir()
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        number = store.save(job, Attempt(1, 5.0, "accepted", task_id="t" * 50_000))

        with pytest.raises(DiskFull):
            await asyncio.wait_for(store.durable(number), 10)


def test_reserve_that_can_not_be_written_stops_the_run(tmp_path: Path) -> None:
    """Trouble other than a full disk is reported with its place."""
    with pytest.raises(RunDirError, match=r"\.reserve"):
        DiskReserve(tmp_path / "none")


async def test_later_word_on_a_part_counts(store: Store) -> None:
    """A download that began anew has another body, and what was known of the first would spoil it."""
    (job,) = jobs(store)
    async with store:
        for facts in ({"total_bytes": 7, "validator": '"old"'}, FACTS):
            store.save_part(job, AssetKind.VIDEO, facts)
            await store.durable(store.save(job))

        assert {"video": FACTS} == store.load_parts(job)


async def test_leaving_a_run_waits_for_its_last_commit(store: Store) -> None:
    """However long another program keeps the database: nothing that was saved is left to a thread that may die."""
    (job,) = jobs(store)
    with closing(sqlite3.connect(store.run_dir / DB_NAME, check_same_thread=False)) as other:
        async with store:
            job.polls = 5
            store.save(job)
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(0.1, other.rollback).start()

        assert 5 == next(query.records(store.reader)).polls


async def test_leaving_a_canceled_run_waits_for_its_last_commit_too(store: Store) -> None:
    """However often its task is canceled: a connection that is closed under its thread ends the whole process."""
    (job,) = jobs(store)

    async def work() -> None:
        async with store:
            job.polls = 5
            store.save(job)
            other.execute("BEGIN IMMEDIATE")

    with closing(sqlite3.connect(store.run_dir / DB_NAME)) as other:
        working = asyncio.ensure_future(work())
        for _ in range(5):
            await asyncio.wait([working], timeout=0.01)
            working.cancel()
        assert not working.done()
        other.rollback()
        await asyncio.wait([working])

    assert working.cancelled()
    assert 5 == next(query.records(store.reader)).polls


async def test_owner_of_a_task_is_known_before_its_commit(store: Store) -> None:
    """Two answers with the same task may come closer to each other than two commits."""
    first, second = jobs(store, 2)
    async with store:
        assert store.task_owner("task_1") is None
        store.save(first, Attempt(1, 5.0, "accepted", "task_1"))
        store.save(second, Attempt(1, 5.0, "pending"))
        before = store.task_owner("task_1")
        await store.durable(store.save(second))

        assert ("job-0", "job-0") == (before, query.task_owner(store.reader, "task_1"))
        assert store.task_owner("task_2") is None
