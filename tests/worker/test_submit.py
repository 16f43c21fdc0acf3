"""The never-twice protocol at its edges: what is on disk when a submission is cut short on our side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.model import FailureClass, Job
from runner.core.outcomes import Accepted, RemoteStatus, RemoteTask
from runner.errors import DiskFull
from runner.worker.submit import submit
from tests.engine.answers import Bug
from tests.engine.fakes import FakeKeys, LoopClock, Notebook, job_in_hand


class Gateway:
    """Counts POSTs, and answers as the test says."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.posts = 0
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def submit(self, body: bytes, key: str) -> Any:
        self.posts += 1
        self.is_asked.set()
        await self.may_answer.wait()
        return self._answer()

    async def poll(self, task_id: str, key: str) -> Any:
        raise AssertionError("nothing is polled here")


def accept() -> Accepted:
    """Answer with a task's id."""
    return Accepted(RemoteTask(("task_1",), RemoteStatus.QUEUED))


def raise_bug() -> None:
    """Answer as a mistake of ours would."""
    raise Bug("post")


def begin(job: Job, store: Notebook, api: Gateway, *, key: str = "a") -> asyncio.Task[Any]:
    """Start a submission."""
    return asyncio.create_task(
        submit(job, b"{}", key, api=api, keys=FakeKeys("a"), store=store, clock=LoopClock())
    )


async def test_nothing_leaves_before_the_intent_is_durable() -> None:
    """
    The POST waits for the disk, and the task's id is saved with its answer.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(), Gateway(accept)
    task = begin(job, store, api)
    await asyncio.sleep(0)
    assert ([(State.SUBMITTING, "pending")], 0) == (store.saved, api.posts)

    store.is_durable.set()
    api.may_answer.set()
    await task

    assert [(State.SUBMITTING, "pending"), (State.SUBMITTED, "accepted")] == store.saved
    assert ("task_1", 1) == (job.task_id, api.posts)


async def test_run_given_up_before_the_intent_is_durable_leaves_the_job_as_it_was() -> None:
    """
    Nothing was sent, so the job is pending again, and its history says so.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(), Gateway(accept)
    task = begin(job, store, api)
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.PENDING, "not_sent") == store.saved[-1]
    assert (0, 0) == (job.attempt, api.posts)


async def test_intent_that_can_not_be_written_sends_nothing() -> None:
    """
    A store that takes nothing more means no POST.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(error=DiskFull("full")), Gateway(accept)

    with pytest.raises(DiskFull):
        await begin(job, store, api)

    assert (State.PENDING, 0) == (job.state, api.posts)


async def test_run_given_up_while_the_answer_is_awaited_leaves_the_job_in_doubt() -> None:
    """
    The POST has left and nobody hears its answer: uncertain at once, never pending.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(), Gateway(accept)
    store.is_durable.set()
    task = begin(job, store, api)
    await api.is_asked.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (State.UNCERTAIN, "uncertain") == store.saved[-1]
    assert job.error is not None
    assert FailureClass.UNCERTAIN_SUBMIT is job.error.cls


async def test_bug_while_the_answer_is_read_leaves_the_job_in_doubt() -> None:
    """
    Whatever we do wrong after the POST has left, the job is not submitted again.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(), Gateway(raise_bug)
    store.is_durable.set()
    api.may_answer.set()

    with pytest.raises(Bug):
        await begin(job, store, api)

    assert (State.UNCERTAIN, "uncertain") == store.saved[-1]


async def test_key_that_is_not_there_leaves_the_job_as_it_was() -> None:
    """
    A mistake before the intent puts nothing in doubt.
    """
    job, store, api = job_in_hand("a", State.PENDING), Notebook(), Gateway(accept)

    with pytest.raises(KeyError):
        await begin(job, store, api, key="b")

    assert (State.PENDING, [], 0) == (job.state, store.saved, api.posts)
