"""What the answer to a POST changes of its job, and what its history keeps."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.model import Asset, Attempt, FailureClass, Job
from runner.core.outcomes import Accepted, RemoteStatus, RemoteTask, SubmitOutcome
from runner.worker.submit import Submitter
from tests.engine.answers import (
    AMBIGUOUS,
    BAD_BASE_URL,
    BAD_KEY,
    NO_CHANNEL,
    NOT_SENT,
    REJECTED,
    THROTTLED,
    Bug,
)
from tests.engine.fakes import FakeKeys, FakeStore, job_in_memory
from tests.worker.fakes import WALL_AT_0, FakeClock

TWO_IDS = Accepted(RemoteTask(("task_1", "other"), RemoteStatus.QUEUED), 202)


@dataclass
class History(FakeStore):
    """A store that is durable at once, and keeps the attempts."""

    attempts: list[Attempt | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.is_durable.set()

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        self.attempts.append(attempt)
        return super().save(job, attempt, assets)


@dataclass
class Answering:
    """A gateway that gives one answer, or raises it, 5 s later."""

    clock: FakeClock
    answer: SubmitOutcome | BaseException
    keys: list[str] = field(default_factory=list)

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        self.keys.append(key)
        self.clock.at += 5.0
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    async def poll(self, task_id: str, key: str) -> Any:
        raise AssertionError("nothing is polled here")

    poll_afresh = poll


async def submit_once(answer: SubmitOutcome | BaseException, **job: Any) -> tuple[Job, History]:
    """Submit a job that has one attempt behind it, with the key "b"."""
    clock, store = FakeClock(), History()
    pending = job_in_memory("a", State.PENDING, attempt=1, key="a", **job)
    api = Answering(clock, answer)
    with suppress(asyncio.CancelledError, Bug):
        await Submitter(api, FakeKeys("a", "b"), store, clock).submit(pending, b"{}", "b")
    assert (["b"], "b") == (api.keys, pending.key)
    return pending, store


async def test_accepted_job_begins_its_task_anew() -> None:
    """
    The task counts from when its POST left, and nothing of an older task or attempt stays with the job.
    """
    job, store = await submit_once(
        TWO_IDS,
        polls=3,
        uninformative_polls=2,
        no_channel_posts=2,
        unknown_polls=1,
        remote_status="failed",
        completed_at=1.0,
        finished_at=2.0,
        generate_s=3.0,
        download_s=4.0,
        usage={"total_tokens": 5},
        error=REJECTED.failure,
    )

    at = WALL_AT_0 + 100.0
    assert (State.SUBMITTED, 2, "task_1", "other") == (job.state, job.attempt, job.task_id, job.other_task_id)
    assert (at, 105.0) == (job.submitted_at, job.waiting_since)
    assert (0, 0, 0) == (job.polls, job.uninformative_polls, job.unknown_polls)
    assert (None, None, 0) == (job.remote_status, job.error, job.no_channel_posts)
    assert (None, None) == (job.completed_at, job.finished_at)
    assert (None, None, None) == (job.generate_s, job.download_s, job.usage)
    assert [
        Attempt(2, at, "pending", key="b"),
        Attempt(2, at, "accepted", "task_1", 202, None, "b"),
    ] == store.attempts


@pytest.mark.parametrize(
    ("outcome", "word", "attempt", "no_channel_posts"),
    [
        (NOT_SENT, "not_sent", 2, 0),
        (NO_CHANNEL, "no_channel", 2, 1),
        (THROTTLED, "throttled", 2, 0),
        (BAD_KEY, "refused", 2, 0),
        (BAD_BASE_URL, "refused", 2, 0),
    ],
)
async def test_post_that_surely_made_no_task_leaves_the_job_pending(
    outcome: Any, word: str, attempt: int, no_channel_posts: int
) -> None:
    """
    Every try stays in the history; only a try that no channel took counts against the job itself.
    """
    job, store = await submit_once(outcome)

    assert (State.PENDING, attempt, no_channel_posts) == (job.state, job.attempt, job.no_channel_posts)
    assert (outcome.failure, None, None) == (job.error, job.task_id, job.finished_at)
    assert Attempt(2, WALL_AT_0 + 100.0, word, None, None, outcome.failure, "b") == store.attempts[-1]


@pytest.mark.parametrize(
    ("outcome", "state", "word"),
    [(REJECTED, State.FAILED, "rejected"), (AMBIGUOUS, State.UNCERTAIN, "uncertain")],
)
async def test_post_that_ends_its_job(outcome: Any, state: State, word: str) -> None:
    """
    The job rests, with the reason, the time and the attempt.
    """
    job, store = await submit_once(outcome)

    assert (state, 2, 0) == (job.state, job.attempt, job.no_channel_posts)
    assert (outcome.failure, WALL_AT_0 + 105.0) == (job.error, job.finished_at)
    assert Attempt(2, WALL_AT_0 + 100.0, word, None, None, outcome.failure, "b") == store.attempts[-1]


@pytest.mark.parametrize(
    ("error", "why"), [(asyncio.CancelledError(), "the run was stopped"), (Bug("post"), "(Bug: post)")]
)
async def test_post_that_nobody_hears_the_answer_of(error: BaseException, why: str) -> None:
    """
    The doubt is saved with when it came up and why.
    """
    job, store = await submit_once(error)

    assert (State.UNCERTAIN, WALL_AT_0 + 105.0) == (job.state, job.finished_at)
    assert job.error is not None
    assert FailureClass.UNCERTAIN_SUBMIT is job.error.cls
    assert why in job.error.message
    assert Attempt(2, WALL_AT_0 + 100.0, "uncertain", error=job.error, key="b") == store.attempts[-1]
