"""When a task is first asked for, and what its answer changes of the job."""

from __future__ import annotations

import asyncio

import pytest

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Polled, PollOutcome, RemoteStatus, RemoteTask, Transient
from runner.worker.poll import Poller
from tests.engine.answers import POLL_401, POLL_403, POLL_502, RUNNING, UNKNOWN, failure
from tests.engine.fakes import FakeKeys, FakeStore, job_in_memory
from tests.worker.fakes import WALL_AT_0, FakeClock, FakeQueries


async def poll_once(answer: PollOutcome, job: Job) -> FakeStore:
    """Ask for a job's task, once, and return the store that was told of it."""
    store = FakeStore()
    await Poller(FakeQueries([answer]), FakeKeys("a"), store, FakeClock(at=500.0)).poll(job)
    return store


def seen(
    status: RemoteStatus, word: str = "word", error: Failure | None = None, is_known_status: bool = True
) -> Polled:
    """Make an answer that shows the task."""
    return Polled(
        RemoteTask(("task",), status, word, error=error, completed_at=490.0, is_known_status=is_known_status)
    )


async def test_task_is_not_asked_for_before_its_id_is_durable() -> None:
    """
    The query waits for the commit that has the task's id.
    """
    job, store = job_in_memory("a", State.SUBMITTED, task_id="task", key="a"), FakeStore()
    api = FakeQueries([RUNNING])
    store.save(job)
    asking = asyncio.create_task(Poller(api, FakeKeys("a"), store, FakeClock()).poll(job))
    await asyncio.sleep(0)
    assert [] == api.keys

    store.is_durable.set()

    assert RUNNING is await asking
    assert ["a"] == api.keys


@pytest.mark.parametrize(
    ("answer", "unknowns"), [(UNKNOWN, 2), (RUNNING, 0), (POLL_502, 0), (POLL_401, 0), (POLL_403, 0)]
)
async def test_only_answers_in_a_row_make_a_task_unknown(answer: PollOutcome, unknowns: int) -> None:
    """
    Whatever else is answered, the count of answers that did not know the task starts over; every query counts.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a", unknown_polls=2, polls=5)

    await poll_once(answer, job)

    assert (unknowns, 6) == (job.unknown_polls, job.polls)


async def test_success_tells_how_long_the_task_took() -> None:
    """
    By our own clock, from the submission on; the job has not ended, since its video is still to come.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a", submitted_at=WALL_AT_0 + 380.0)

    store = await poll_once(seen(RemoteStatus.SUCCEEDED, "completed"), job)

    assert [(State.DOWNLOADING, None)] == store.saved
    assert (120.0, 490.0, None) == (job.generate_s, job.completed_at, job.finished_at)
    assert ("completed", None, ()) == (job.remote_status, job.error, job.warnings)


@pytest.mark.parametrize(("submitted_at", "generate_s"), [(WALL_AT_0 + 600.0, 0.0), (None, None)])
async def test_no_task_took_less_than_no_time(submitted_at: float | None, generate_s: float | None) -> None:
    """
    Wall clocks are set back; and of a task from elsewhere nobody knows when it began.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a", submitted_at=submitted_at)

    await poll_once(seen(RemoteStatus.SUCCEEDED), job)

    assert generate_s == job.generate_s


async def test_task_that_failed_ends_its_job() -> None:
    """
    Its reason and its time are kept, and no time of generation.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a", submitted_at=WALL_AT_0 + 380.0)
    moderated = failure(FailureClass.MODERATION)

    store = await poll_once(seen(RemoteStatus.FAILED, error=moderated), job)

    assert [(State.FAILED, None)] == store.saved
    assert (moderated, WALL_AT_0 + 500.0, None) == (job.error, job.finished_at, job.generate_s)


async def test_task_under_way_is_not_saved() -> None:
    """
    A restart loses nothing with it, and most answers are of this kind.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a")

    store = await poll_once(seen(RemoteStatus.RUNNING, "pondering", is_known_status=False), job)

    assert ([], State.SUBMITTED, "pondering") == (store.saved, job.state, job.remote_status)
    (warning,) = job.warnings
    assert "'pondering'" in warning


async def test_status_that_the_api_wrote_no_word_for_is_named_by_its_meaning() -> None:
    """
    The results name a status in any case.
    """
    job = job_in_memory("a", State.SUBMITTED, task_id="task", key="a")

    await poll_once(Polled(RemoteTask(("task",), RemoteStatus.QUEUED)), job)

    assert RemoteStatus.QUEUED.value == job.remote_status


async def test_an_answer_that_was_not_understood_is_kept_once() -> None:
    """
    It is there for whoever asks why; the next one is kept only if it says something else.
    """
    job, store = job_in_memory("a", State.SUBMITTED, task_id="task", key="a"), FakeStore()
    odd, other = (
        Transient(failure(FailureClass.UNAVAILABLE, message), answer=f"<{message}>")
        for message in ("odd", "new")
    )

    for answer in (odd, odd, other, RUNNING):
        await Poller(FakeQueries([answer]), FakeKeys("a"), store, FakeClock()).poll(job)

    assert ["<odd>", "<new>"] == store.answers
