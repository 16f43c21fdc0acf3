"""
Submit one job: the never-twice protocol, from intent to outcome.

1. The intent is saved, and durable, before a byte leaves.
2. The POST is sent once. Nothing below repeats it.
3. Its outcome is saved, whatever it is. A task id is durable before it is polled.

A POST that is abandoned (by cancellation, or by a bug in runner) leaves its job
uncertain, at once and on disk, and never among those to submit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct

from runner.core.lifecycle import Event, advance
from runner.core.model import Attempt, Failure, FailureClass, Job
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    NoChannel,
    NotSent,
    SubmitOutcome,
    submit_transition,
)
from runner.worker.ports import Api, Clock, Keys, SubmissionStore

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
MAX_INTENT_AGE_S = 30.0
"""A machine that slept for longer between the intent and the POST does not send it."""


def uptime() -> float:
    """Return seconds since the machine was started, those in which it slept included."""
    return time.clock_gettime(_CLOCK)


class Submitter(Struct, frozen=True):
    """
    Submits jobs, each at most once.

    Attributes:
        uptime: The function `uptime`, if other processes can take over the run's journal while the machine sleeps; else None.
    """

    api: Api
    keys: Keys
    store: SubmissionStore
    clock: Clock
    uptime: Callable[[], float] | None = None

    async def submit(self, job: Job, body: bytes, key: str) -> SubmitOutcome:
        """
        Submit a pending job and save the outcome.

        Args:
            body: The request as it is sent.
            key: Fingerprint of the key to use.

        Raises:
            RunDirError: The run directory is no longer at its path; nothing was sent.
            RunnerError: The store can't be written; if the POST was accepted, the job has its task id all the same.
        """
        begun_s = 0.0 if self.uptime is None else self.uptime()
        secret = self.keys.secret(key)
        job.attempt += 1
        job.key = key
        sent_at = self.clock.wall()
        job.state = advance(job.state, Event.INTENT)
        try:
            commit = self.store.save(job, Attempt(job.attempt, sent_at, "pending", key=key))
            await self.store.durable(commit)
            self.store.require_in_place(commit)
        except BaseException:
            self._undo(job, sent_at)
            raise
        age_s = 0.0 if self.uptime is None else self.uptime() - begun_s
        try:
            outcome = _too_late(age_s) if age_s > MAX_INTENT_AGE_S else await self.api.submit(body, secret)
        except BaseException as error:
            self._mark_uncertain(job, sent_at, error)
            raise
        if isinstance(outcome, Accepted):
            try:
                outcome = self._without_foreign_task(job, outcome)
            except Exception:
                # The task was paid for, even if the store can't be read.
                self._apply(job, sent_at, outcome)
                await self.store.durable(job.commit)
                raise
        self._apply(job, sent_at, outcome)
        return outcome

    def _without_foreign_task(self, job: Job, accepted: Accepted) -> SubmitOutcome:
        """
        Return the outcome, or an uncertain one if the run has the task already (fact F41).

        Such an answer belongs to another submission. The job's own task may exist, and nobody knows its id.
        """
        for task_id in accepted.task.ids:
            owner = self.store.task_owner(task_id)
            if owner is not None:
                whose = "an earlier attempt at this job" if owner == job.job_id else f"the job {owner!r}"
                message = f"the answer names task {task_id}, which belongs to {whose}; the task of {job.job_id!r} is unknown"
                return Ambiguous(
                    Failure(FailureClass.UNCERTAIN_SUBMIT, message, http_status=accepted.http_status)
                )
        return accepted

    def _undo(self, job: Job, sent_at: float) -> None:
        """Put a job back as it was before its intent: nothing was sent yet."""
        number = job.attempt
        job.state = advance(job.state, Event.NOT_SENT)
        job.attempt -= 1
        self.store.save(job, Attempt(number, sent_at, "not_sent", key=job.key))

    def _mark_uncertain(self, job: Job, sent_at: float, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            why = "the run was stopped before the submission was answered"
        else:
            why = f"a bug in runner while the job was submitted ({type(error).__name__}: {error})"
        failure = Failure(FailureClass.UNCERTAIN_SUBMIT, why)
        job.state = advance(job.state, Event.OUTCOME_UNKNOWN)
        job.error = failure
        job.finished_at = self.clock.wall()
        self.store.save(job, Attempt(job.attempt, sent_at, "uncertain", error=failure, key=job.key))

    def _apply(self, job: Job, sent_at: float, outcome: SubmitOutcome) -> None:
        change = submit_transition(outcome)
        number = job.attempt
        job.state = advance(job.state, change.event)
        job.error = change.failure
        if change.event is Event.ACCEPTED:
            job.task_id, job.other_task_id = change.task_id, change.other_task_id
            job.submitted_at = sent_at
            job.waiting_since = self.clock.now()
            job.polls = job.no_channel_posts = job.uninformative_polls = job.unknown_polls = 0
            job.remote_status = job.completed_at = job.finished_at = job.generate_s = job.download_s = None
            job.usage = None
        elif change.event is Event.NOT_SENT:
            # No task was made, and the attempt stays in the history: it explains why a run was slow.
            # Being throttled, or unreachable, is no fault of the job's: it may happen any number of times.
            job.no_channel_posts += isinstance(outcome, NoChannel)
        else:
            job.finished_at = self.clock.wall()
        self.store.save(
            job,
            Attempt(
                number,
                sent_at,
                change.attempt_outcome,
                change.task_id,
                change.http_status,
                change.failure,
                job.key,
                outcome.answer if isinstance(outcome, Ambiguous) else None,
            ),
        )


def _too_late(age_s: float) -> SubmitOutcome:
    why = f"{age_s:.0f} s passed between the intent and its submission, so it was not sent"
    return NotSent(Failure(FailureClass.UNAVAILABLE, why))
