"""What belongs to one attempt is not confused with another's; what the store can't write is an error."""

from __future__ import annotations

import asyncio

import pytest

from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Job
from runner.errors import RunDirError
from runner.store import costs, files, query, takes, work_list
from runner.store.database import reading
from runner.store.store import Store
from runner.store.work_list import JobFilter
from tests.store.jobs import make_spec, sync_jobs

VIDEO = Asset(AssetKind.VIDEO, "assets/a.mp4", 10, "0" * 64, "video/mp4")
FRAME = Asset(AssetKind.LAST_FRAME, "assets/a.last_frame.png", 10, "0" * 64, "image/png")


def one_job(store: Store) -> Job:
    """Insert one job and return it as the engine has it."""
    sync_jobs(store, make_spec("a"))
    job = query.job(store.reader, "a", waiting_since=0.0)
    assert job is not None
    return job


async def test_new_attempt_knows_nothing_of_an_old_ones_files(store: Store) -> None:
    """
    A rerun job does not confuse the old video with the new one, and does not resume the old part.
    """
    job = one_job(store)
    async with store:
        job.attempt = 1
        store.save_part(job, AssetKind.LAST_FRAME, {"total_bytes": 7, "validator": None})
        await store.durable(store.save(job, assets=[VIDEO]))
        assert ((VIDEO,), 1) == (store.load_assets(job), len(store.load_parts(job)))

        job.attempt = 2

        assert ((), {}) == (store.load_assets(job), store.load_parts(job))


async def test_finished_download_has_no_part(store: Store) -> None:
    """
    What was known of an unfinished download is deleted in the commit of its asset.
    """
    job = one_job(store)
    async with store:
        job.attempt = 1
        store.save_part(job, AssetKind.VIDEO, {"total_bytes": 7, "validator": None})
        await store.durable(store.save(job))
        assert ["video"] == list(store.load_parts(job))

        await store.durable(store.save(job, assets=[VIDEO]))

        assert {} == store.load_parts(job)


async def test_old_result_remains_until_there_is_a_new_one(store: Store) -> None:
    """
    The record has the old attempt's assets until the new attempt has its own, and then only those.
    """
    job = one_job(store)
    async with store:
        job.attempt, job.state = 1, State.SUCCEEDED
        await store.durable(store.save(job, assets=[VIDEO, FRAME]))
        job.attempt, job.state = 2, State.SUBMITTED
        await store.durable(store.save(job))
        (record,) = query.records(store.reader)
        assert (VIDEO, FRAME) == record.assets

        await store.durable(store.save(job, assets=[VIDEO]))

        (record,) = query.records(store.reader)
        assert (VIDEO,) == record.assets


async def test_value_that_sqlite_does_not_accept_is_an_error_and_no_hang(store: Store) -> None:
    """
    Whoever waits for a commit gets the error, whatever went wrong in the thread that writes.
    """
    job = one_job(store)
    async with store:
        job.task_id = "\ud800"
        number = store.save(job)

        with pytest.raises(RunDirError, match="a bug in runner"):
            await asyncio.wait_for(store.durable(number), 10)

        assert store.error is not None


async def test_validator_of_a_hostile_server_is_saved_as_it_is(store: Store) -> None:
    """
    A header that is not valid text does not stop the run.
    """
    job = one_job(store)
    async with store:
        facts = {"total_bytes": 7, "validator": '"\udcff"'}
        store.save_part(job, AssetKind.VIDEO, facts)
        await asyncio.wait_for(store.durable(store.save(job)), 10)

        assert {"video": facts} == store.load_parts(job)


def test_jobs_with_the_same_index_are_all_returned(store: Store) -> None:
    """
    Jobs with the same index, as imported ones may have, are all read, a page at a time.
    """
    sync_jobs(store, *(make_spec(f"job-{n}", 0) for n in range(5)))
    names = []
    after = (-1, -1)
    while page := work_list.pending(
        store.reader, "wan2.7-i2v", after=after, count=2, scope=JobFilter(), waiting_since=0.0
    ):
        names += [job.job_id for job, _ in page]
        after = (page[-1][0].index, page[-1][0].seq)

    assert [f"job-{n}" for n in range(5)] == names


async def test_answer_that_was_not_understood_is_kept_with_its_attempt(store: Store) -> None:
    """
    The answer to a submission and the last odd one to a query can be read later; another attempt has its own.
    """
    job = one_job(store)
    async with store:
        store.save(job, Attempt(1, 0.0, "uncertain", answer="odd"))
        job.attempt = 2
        await store.durable(store.save(job, Attempt(2, 0.0, "accepted", "task_1")))
        store.save_answer(job, "first")
        store.save_answer(job, "second")

    assert {1: "odd", 2: "second"} == query.answers(store.reader, "a")
    assert ["task_1"] == [a.task_id for record in query.records(store.reader) for a in record.attempts[1:]]


def test_run_of_an_earlier_version(store: Store) -> None:
    """
    A run.db without the tables that came later is read as it is, and completed when it is opened to run.
    """
    with store.transaction() as connection:
        for table in ("answers", "asset_urls", "checks", "costs", "old_assets", "uploads"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DROP INDEX attempts_task")
    with reading(store.run_dir) as reader:
        assert (
            {} == query.answers(reader, "a") == files.asset_sizes(reader) == files.read_uploads(reader, "to")
        )
        assert [] == list(takes.findings(reader)) == list(query.records(reader))
        assert () == costs.spend(reader)
        assert not files.has_uploads(reader)
    store.__exit__(None, None, None)
    store.__enter__()

    names = {name for (name,) in store.reader.execute("SELECT name FROM sqlite_schema")}
    assert {"answers", "attempts_task"} <= names
