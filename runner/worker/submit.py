"""
Submit one job: the never-twice protocol, from intent to outcome.

1. The intent is saved, and durable, before a byte leaves.
2. The POST is sent once. Nothing below repeats it.
3. Whatever comes of it is saved. An id is durable before it is polled.

A POST that is abandoned (by cancellation, or by a bug of ours) leaves its job in
doubt, at once and on disk, never back among those to submit.
"""

from __future__ import annotations

import asyncio

from runner.core.lifecycle import Event
from runner.core.model import Attempt, Failure, FailureClass, Job
from runner.core.outcomes import NoChannel, SubmitOutcome, Throttled, submit_transition
from runner.worker.ports import Api, Clock, JobStore, Keys


async def submit(
    job: Job, body: bytes, key: str, *, api: Api, keys: Keys, store: JobStore, clock: Clock
) -> SubmitOutcome:
    """
    Submit a pending job and save what came of it.

    Args:
        body: The request as it is sent.
        key: Fingerprint of the key to use.

    Raises:
        RunnerError: The store can't be written; if the POST was accepted, the job has its task's id all the same.
    """
    secret = keys.secret(key)
    job.attempt += 1
    job.key = key
    at = clock.wall()
    job.transition(Event.INTENT)
    try:
        await store.durable(store.save(job, Attempt(job.attempt, at, "pending", key=key)))
    except BaseException:
        _undo(job, at, store)
        raise
    try:
        outcome = await api.submit(body, secret)
    except BaseException as error:
        _mark_uncertain(job, at, error, store, clock)
        raise
    _apply(job, at, outcome, store, clock)
    return outcome


def _apply(job: Job, at: float, outcome: SubmitOutcome, store: JobStore, clock: Clock) -> None:
    settled = submit_transition(outcome)
    number = job.attempt
    job.transition(settled.event)
    job.error = settled.failure
    if settled.event is Event.ACCEPTED:
        job.task_id, job.other_task_id = settled.task_id, settled.other_task_id
        job.submitted_at = at
        job.waiting_since = clock.now()
        job.polls = job.uninformative_polls = job.unknown_polls = 0
        job.remote_status = job.completed_at = job.finished_at = job.generate_s = job.download_s = None
    elif settled.event is Event.NOT_SENT:
        # The next try takes this one's number, since no task came of it; but that the gateway throttled
        # is kept, since it tells why a run was slow.
        if not isinstance(outcome, Throttled):
            job.attempt -= 1
        # Being throttled, or unreachable, is no fault of the job's: it may happen any number of times.
        job.no_channel_posts += isinstance(outcome, NoChannel)
    else:
        job.finished_at = clock.wall()
    store.save(
        job,
        Attempt(
            number,
            at,
            settled.attempt_outcome,
            settled.task_id,
            settled.http_status,
            settled.failure,
            job.key,
        ),
    )


def _undo(job: Job, at: float, store: JobStore) -> None:
    """Put a job back as it was before its intent: nothing has left yet."""
    number = job.attempt
    job.transition(Event.NOT_SENT)
    job.attempt -= 1
    store.save(job, Attempt(number, at, "not_sent", key=job.key))


def _mark_uncertain(job: Job, at: float, error: BaseException, store: JobStore, clock: Clock) -> None:
    if isinstance(error, asyncio.CancelledError):
        why = "the run was stopped while the answer to the submission was awaited"
    else:
        why = f"a bug of runner while the job was submitted ({type(error).__name__}: {error})"
    failure = Failure(FailureClass.UNCERTAIN_SUBMIT, why)
    job.transition(Event.OUTCOME_UNKNOWN)
    job.error = failure
    job.finished_at = clock.wall()
    store.save(job, Attempt(job.attempt, at, "uncertain", error=failure, key=job.key))
