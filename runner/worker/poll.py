"""Ask for one task, with the key that made it or, where that is refused, with the others."""

from __future__ import annotations

from runner.core.job import Job
from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass
from runner.core.outcome import Denied, Polled, PollOutcome, Unknown
from runner.core.settle import settle_task
from runner.worker.ports import Api, Clock, Keys, Saving


async def ask(job: Job, *, api: Api, keys: Keys) -> PollOutcome:
    """
    Ask for a job's task.

    Lookups are per account (wire facts 3.3), so any key of the same user finds the task. Where the answer to
    the submission named two ids that differ, the other one is tried once the first is not known (wire
    facts 5, row 37).
    """
    assert job.task_id is not None
    outcome: PollOutcome = Denied(Failure(FailureClass.AUTH, "no usable key is left to ask with"))
    for fingerprint in keys.for_task(job.key):
        outcome = await api.poll(job.task_id, keys.secret(fingerprint))
        if not isinstance(outcome, Denied):
            job.key = fingerprint
            break
    if isinstance(outcome, Unknown) and job.other_task_id is not None:
        job.task_id, job.other_task_id = job.other_task_id, None
    return outcome


async def poll(job: Job, *, api: Api, keys: Keys, store: Saving, clock: Clock) -> PollOutcome:
    """
    Ask for a submitted job's task, and save the change if there is one.

    Raises:
        RunnerError: The store can't be written.
    """
    # The id is on disk before it is used, so that no task is ever known only to a process that may die.
    await store.durable(job.commit)
    outcome = await ask(job, api=api, keys=keys)
    job.polls += 1
    if not isinstance(outcome, Unknown):
        job.unknowns = 0
    if isinstance(outcome, Polled):
        _see(job, outcome, store, clock)
    return outcome


def _see(job: Job, outcome: Polled, store: Saving, clock: Clock) -> None:
    task = outcome.task
    job.remote_status = task.word or task.status.value
    if not task.is_known_word:
        job.warn(f"the API reports a state that no document names: {task.word!r}; taken as running")
    event, failure = settle_task(task)
    if event is None:
        return
    job.meet(event)
    job.completed_at = task.completed_at
    job.error = failure
    if event is Event.REMOTE_FAILED:
        job.finished_at = clock.wall()
    elif job.submitted_at is not None:
        job.generate_s = max(0.0, clock.wall() - job.submitted_at)
    store.save(job)


def rest(job: Job, event: Event, failure: Failure, *, store: Saving, clock: Clock) -> None:
    """Bring a job to rest without success, and save it."""
    job.meet(event)
    job.error = failure
    job.finished_at = clock.wall()
    store.save(job)
