"""What the never-twice protocol needs of a store: the same tests for two test stores and the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Attempt, Job, OnChanged
from runner.errors import DiskFull, RunnerError
from runner.store import query
from runner.store.database import connect_reader
from runner.store.store import Store
from runner.store.sync import sync
from runner.worker.ports import JobStore
from tests.engine.fakes import FakeStore, job_in_memory, spec
from tests.engine.harness import HarnessStore


@dataclass(frozen=True)
class OpenStore:
    """
    A store with one job in it.

    Attributes:
        saved_state: Reads the job's state as the next process would find it.
        break_down: Makes sure that nothing more can be written.
    """

    store: JobStore
    job: Job
    saved_state: Callable[[], State]
    break_down: Callable[[], None]


@asynccontextmanager
async def fake(run_dir: Path) -> AsyncIterator[OpenStore]:
    """Open the fake."""
    store = FakeStore()
    store.is_durable.set()

    def break_down() -> None:
        store.error = DiskFull("no room")

    yield OpenStore(store, job_in_memory("a", State.PENDING), lambda: store.saved[-1][0], break_down)


@asynccontextmanager
async def on_disk(run_dir: Path, make: type[Store]) -> AsyncIterator[OpenStore]:
    """Open a store on disk."""

    def saved_state() -> State:
        with closing(connect_reader(run_dir)) as reader:
            found = query.job(reader, "a", waiting_since=0.0)
            assert found is not None
            return found.state

    with make(run_dir) as opened:
        with opened.transaction() as connection:
            sync(connection, [spec("a", 0)], on_changed=OnChanged.ERROR, at=0.0)
        job = query.job(opened.reader, "a", waiting_since=0.0)
        assert job is not None

        def break_down() -> None:
            # Not a text that SQLite accepts.
            job.remote_status = "\ud800"

        async with opened:
            yield OpenStore(opened, job, saved_state, break_down)


Opening = Callable[[Path], AbstractAsyncContextManager[OpenStore]]
all_three = pytest.mark.parametrize(
    "opening",
    [fake, partial(on_disk, make=HarnessStore), partial(on_disk, make=Store)],
    ids=["fake", "harness", "real"],
)


@all_three
async def test_durable_changes_survive(opening: Opening, tmp_path: Path) -> None:
    """
    Once its commit is durable, the next process finds a job as it was saved.
    """
    async with opening(tmp_path) as it:
        it.job.state = advance(it.job.state, Event.INTENT)
        await it.store.durable(it.store.save(it.job, Attempt(1, 0.0, "pending")))

        assert State.SUBMITTING is it.saved_state()


@all_three
async def test_commit_numbers_never_decrease(opening: Opening, tmp_path: Path) -> None:
    """
    A job knows its newest commit, so that its task is not polled before; older commits are durable with it.
    """
    async with opening(tmp_path) as it:
        first = it.store.save(it.job)
        await it.store.durable(first)
        second = it.store.save(it.job)
        await it.store.durable(second)
        await it.store.durable(first)

        assert 0 < first <= second == it.job.commit


@all_three
async def test_job_without_a_commit_needs_no_wait(opening: Opening, tmp_path: Path) -> None:
    """
    A job of an earlier process has no commit of this one, and may be polled at once.
    """
    async with opening(tmp_path) as it:
        assert 0 == it.job.commit

        await it.store.durable(it.job.commit)


@all_three
async def test_store_that_failed_accepts_nothing_more(opening: Opening, tmp_path: Path) -> None:
    """
    A failed commit raises an error to those who wait for it, and to those who save after it.
    """
    async with opening(tmp_path) as it:
        it.break_down()
        number = it.store.save(it.job)

        with pytest.raises(RunnerError) as caught:
            await it.store.durable(number)
        with pytest.raises(RunnerError) as again:
            it.store.save(it.job)

    assert str(caught.value) == str(again.value)
