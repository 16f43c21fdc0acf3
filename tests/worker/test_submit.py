"""The never-twice protocol: what is on disk when a submission is abandoned on our side."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    KeyRefused,
    NoChannel,
    NotSent,
    RemoteStatus,
    RemoteTask,
    SubmitOutcome,
    Throttled,
)
from runner.errors import DiskFull
from runner.worker.submit import MAX_INTENT_AGE_S, Submitter
from tests.engine.answers import Bug
from tests.engine.fakes import FakeKeys, FakeStore, LoopClock, job_in_memory


class BlockingApi:
    """Counts POSTs, and answers when the test says so."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.posts = 0
        self.was_called = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def submit(self, body: bytes, key: str) -> Any:
        self.posts += 1
        self.was_called.set()
        await self.may_answer.wait()
        return self._answer()

    async def poll(self, task_id: str, key: str) -> Any:
        raise AssertionError("nothing is polled here")

    async def poll_afresh(self, task_id: str, key: str) -> Any:
        raise AssertionError("nothing is polled here")


def accept() -> Accepted:
    """Answer with a task id."""
    return Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))


def raise_bug() -> None:
    """Fail as a mistake in our code would."""
    raise Bug("post")


def start(job: Job, store: FakeStore, api: BlockingApi, *, key: str = "a") -> asyncio.Task[Any]:
    """Start a submission."""
    return asyncio.create_task(Submitter(api, FakeKeys("a"), store, LoopClock()).submit(job, b"{}", key))


async def test_nothing_leaves_before_the_intent_is_durable() -> None:
    """
    The POST waits for the disk, and the task's id is saved with its answer.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(accept)
    task = start(job, store, api)
    await asyncio.sleep(0)
    assert ([(State.SUBMITTING, "pending")], 0) == (store.saved, api.posts)

    store.is_durable.set()
    api.may_answer.set()
    await task

    assert [(State.SUBMITTING, "pending"), (State.SUBMITTED, "accepted")] == store.saved
    assert ("task_1", 1) == (job.task_id, api.posts)


async def test_cancellation_before_the_intent_is_durable_leaves_the_job_pending() -> None:
    """
    Nothing was sent, so the job is pending again, and its attempts say so.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(accept)
    task = start(job, store, api)
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, "not_sent") == store.saved[-1]
    assert (0, 0) == (job.attempt, api.posts)


@pytest.mark.parametrize("kind", [NotSent, NoChannel, KeyRefused, Throttled])
async def test_attempt_that_came_to_nothing_stays_in_the_history(
    kind: Callable[[Failure], SubmitOutcome],
) -> None:
    """
    The next attempt gets a number of its own, so both are in the results.
    """
    job, store = job_in_memory("a", State.PENDING), FakeStore()
    store.is_durable.set()
    answers = iter([kind(Failure(FailureClass.UNAVAILABLE, "no")), accept()])
    api = BlockingApi(lambda: next(answers))
    api.may_answer.set()

    await start(job, store, api)
    await start(job, store, api)

    assert (2, State.SUBMITTED) == (job.attempt, job.state)


async def test_intent_that_cannot_be_saved_sends_nothing() -> None:
    """
    If the store can't be written, there is no POST.
    """
    job, store, api = (
        job_in_memory("a", State.PENDING),
        FakeStore(error=DiskFull("full")),
        BlockingApi(accept),
    )

    with pytest.raises(DiskFull):
        await start(job, store, api)

    assert (State.PENDING, 0) == (job.state, api.posts)


async def test_cancellation_before_the_answer_leaves_the_job_uncertain() -> None:
    """
    The POST was sent and its answer is not read: uncertain at once, never pending.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(accept)
    store.is_durable.set()
    task = start(job, store, api)
    await api.was_called.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.UNCERTAIN, "uncertain") == store.saved[-1]
    assert job.error is not None
    assert FailureClass.UNCERTAIN_SUBMIT is job.error.cls


async def test_bug_while_the_answer_is_read_leaves_the_job_uncertain() -> None:
    """
    Whatever goes wrong in our code after the POST was sent, the job is not submitted again.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(raise_bug)
    store.is_durable.set()
    api.may_answer.set()

    with pytest.raises(Bug):
        await start(job, store, api)

    assert (State.UNCERTAIN, "uncertain") == store.saved[-1]


async def test_unknown_key_leaves_the_job_as_it_was() -> None:
    """
    A mistake before the intent makes no job uncertain.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(accept)

    with pytest.raises(KeyError):
        await start(job, store, api, key="b")

    assert (State.PENDING, [], 0) == (job.state, store.saved, api.posts)


@pytest.mark.parametrize(
    ("paused_s", "kind"), [(MAX_INTENT_AGE_S + 1, NotSent), (MAX_INTENT_AGE_S - 5, Accepted)]
)
async def test_intent_that_is_old_sends_nothing(paused_s: float, kind: type[SubmitOutcome]) -> None:
    """
    While the machine slept, another process may have taken over the journal, and the job.
    """
    job, store, api = job_in_memory("a", State.PENDING), FakeStore(), BlockingApi(accept)
    store.is_durable.set()
    api.may_answer.set()

    uptime = iter([7.0, 7.0 + paused_s]).__next__
    outcome = await Submitter(api, FakeKeys("a"), store, LoopClock(), uptime).submit(job, b"{}", "a")

    assert kind is type(outcome)
    assert int(kind is Accepted) == api.posts


class UnreadableStore(FakeStore):
    """A store whose disk can be written and not read."""

    def task_owner(self, task_id: str) -> str | None:
        raise sqlite3.OperationalError("disk I/O error")


async def test_task_is_saved_although_the_store_cannot_be_read() -> None:
    """
    The answer names a task that was paid for: its id is on disk before the error stops the run.
    """
    job, store, api = job_in_memory("a", State.PENDING), UnreadableStore(), BlockingApi(accept)
    store.is_durable.set()
    api.may_answer.set()

    with pytest.raises(sqlite3.OperationalError):
        await start(job, store, api)

    assert (State.SUBMITTED, "task_1") == (job.state, job.task_id)
    assert (State.SUBMITTED, "accepted") == store.saved[-1]


@pytest.mark.parametrize(("owner", "whose"), [("b", "the job 'b'"), ("a", "an earlier attempt at this job")])
async def test_id_that_the_run_has_already_proves_no_task(owner: str, whose: str) -> None:
    """
    An answer with another submission's id leaves the job uncertain, and names both.
    """
    job, store = job_in_memory("a", State.PENDING), FakeStore(owners={"task_1": owner})
    api = BlockingApi(accept)
    store.is_durable.set()
    api.may_answer.set()

    outcome = await start(job, store, api)

    assert isinstance(outcome, Ambiguous)
    assert (State.UNCERTAIN, None) == (job.state, job.task_id)
    assert (State.UNCERTAIN, "uncertain") == store.saved[-1]
    assert f"task task_1, which belongs to {whose}; the task of 'a' is unknown" in outcome.failure.message
