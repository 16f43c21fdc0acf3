"""What the never-twice protocol relies on in a store: the tests' notebook and the stage's store beside the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from runner.core.lifecycle import Event, State
from runner.core.model import Attempt, Job
from runner.errors import DiskFull, RunnerError
from runner.store import query
from runner.store.database import connect_reader
from runner.store.store import Store
from runner.store.sync import OnChanged, sync
from runner.worker.ports import JobStore
from tests.engine.fakes import Notebook, StageStore, job_in_hand, spec


@dataclass(frozen=True)
class Room:
    """
    A store with one job in it.

    Attributes:
        kept: Reads the job's state as the next process would find it.
        break_down: Sees to it that nothing more can be written.
    """

    store: JobStore
    job: Job
    kept: Callable[[], State]
    break_down: Callable[[], None]


@asynccontextmanager
async def notebook(run_dir: Path) -> AsyncIterator[Room]:
    """Open the fake."""
    book = Notebook()
    book.is_durable.set()

    def break_down() -> None:
        book.error = DiskFull("no room")

    yield Room(book, job_in_hand("a", State.PENDING), lambda: book.saved[-1][0], break_down)


@asynccontextmanager
async def store(run_dir: Path, make: type[Store]) -> AsyncIterator[Room]:
    """Open a store on disk."""

    def kept() -> State:
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
            # No text that SQLite takes.
            job.remote_status = "\ud800"

        async with opened:
            yield Room(opened, job, kept, break_down)


Opening = Callable[[Path], AbstractAsyncContextManager[Room]]
all_three = pytest.mark.parametrize(
    "opening",
    [notebook, partial(store, make=StageStore), partial(store, make=Store)],
    ids=["notebook", "stage", "real"],
)


@all_three
async def test_what_is_durable_is_kept(opening: Opening, tmp_path: Path) -> None:
    """
    Once its commit is durable, the next process finds a job as it was saved.
    """
    async with opening(tmp_path) as room:
        room.job.transition(Event.INTENT)
        await room.store.durable(room.store.save(room.job, Attempt(1, 0.0, "pending")))

        assert State.SUBMITTING is room.kept()


@all_three
async def test_numbers_of_commits_never_fall(opening: Opening, tmp_path: Path) -> None:
    """
    A job remembers the commit that it is in, so that its task is polled no sooner; an older one is durable with it.
    """
    async with opening(tmp_path) as room:
        first = room.store.save(room.job)
        await room.store.durable(first)
        second = room.store.save(room.job)
        await room.store.durable(second)
        await room.store.durable(first)

        assert 0 < first <= second == room.job.commit


@all_three
async def test_nothing_saved_is_nothing_to_wait_for(opening: Opening, tmp_path: Path) -> None:
    """
    A job that an earlier process left has no commit of this one, and may be polled at once.
    """
    async with opening(tmp_path) as room:
        assert 0 == room.job.commit

        await room.store.durable(room.job.commit)


@all_three
async def test_store_that_failed_takes_nothing_more(opening: Opening, tmp_path: Path) -> None:
    """
    Who waits for a commit that failed hears why, and so does whoever saves after that.
    """
    async with opening(tmp_path) as room:
        room.break_down()
        number = room.store.save(room.job)

        with pytest.raises(RunnerError) as caught:
            await room.store.durable(number)
        with pytest.raises(RunnerError) as again:
            room.store.save(room.job)

    assert str(caught.value) == str(again.value)
