"""Ask for one task, with the key that made it or, where that is refused, with the others."""

from __future__ import annotations

from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Denied, Polled, PollOutcome, Transient, Unknown, task_transition
from runner.worker.ports import Api, Clock, JobStore, Keys

_NO_KEY = Denied(Failure(FailureClass.AUTH, "no usable key is left to ask with"))


async def query_task(job: Job, *, api: Api, keys: Keys) -> PollOutcome:
    """
    Ask for a job's task.

    Lookups are per account (fact F7), so any key of the same user finds the task, and a key of another
    account knows nothing of it: that the task does not exist is believed of the key that made it, or of all.

    Where the answer to the submission named two ids that differ, they are tried in turn until one is known
    (fact F30).
    """
    assert job.task_id is not None
    denied: list[Denied] = []
    unknown: Unknown | None = None
    for fingerprint in keys.for_task(job.key):
        outcome = await api.poll(job.task_id, keys.secret(fingerprint))
        if isinstance(outcome, Polled):
            job.key, job.other_task_id = fingerprint, None
            return outcome
        if isinstance(outcome, Denied):
            denied.append(outcome)
        elif isinstance(outcome, Unknown) and fingerprint != job.key:
            unknown = outcome
        else:
            return _swap_id(job, outcome)
    return _swap_id(job, _combine(denied, unknown))


def _combine(denied: list[Denied], unknown: Unknown | None) -> PollOutcome:
    """Say what refusals and ignorance come to, from keys none of which showed the task."""
    if unknown is not None:
        return Transient(denied[0].failure) if denied else unknown
    # Only where every key is refused as unknown is that the word on the whole pool.
    others = [answer for answer in denied if answer.failure.cls is not FailureClass.AUTH]
    return next(iter(others or denied), _NO_KEY)


def _swap_id(job: Job, outcome: PollOutcome) -> PollOutcome:
    if isinstance(outcome, Unknown) and job.other_task_id is not None:
        job.task_id, job.other_task_id = job.other_task_id, job.task_id
    return outcome


async def poll(job: Job, *, api: Api, keys: Keys, store: JobStore, clock: Clock) -> PollOutcome:
    """
    Ask for a submitted job's task, and save the change if there is one.

    Raises:
        RunnerError: The store can't be written.
    """
    # The id is on disk before it is used, so that no task is ever known only to a process that may die.
    await store.durable(job.commit)
    outcome = await query_task(job, api=api, keys=keys)
    job.polls += 1
    if not isinstance(outcome, Unknown):
        job.unknown_polls = 0
    if isinstance(outcome, Polled):
        _record(job, outcome, store, clock)
    return outcome


def _record(job: Job, outcome: Polled, store: JobStore, clock: Clock) -> None:
    task = outcome.task
    job.remote_status = task.raw_status or task.status.value
    if not task.is_known_status:
        job.warn(f"the API reports a state that no document names: {task.raw_status!r}; taken as running")
    event, failure = task_transition(task)
    if event is None:
        return
    job.transition(event)
    job.completed_at = task.completed_at
    job.error = failure
    if event is Event.REMOTE_FAILED:
        job.finished_at = clock.wall()
    elif job.submitted_at is not None:
        job.generate_s = max(0.0, clock.wall() - job.submitted_at)
    store.save(job)


def finish_unsuccessful(job: Job, event: Event, failure: Failure, *, store: JobStore, clock: Clock) -> None:
    """Bring a job to rest without success, and save it."""
    job.transition(event)
    job.error = failure
    job.finished_at = clock.wall()
    store.save(job)
