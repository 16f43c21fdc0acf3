"""Query one task, with the key that submitted it or, if that is refused, with the others."""

from __future__ import annotations

from msgspec import Struct

from runner.core.lifecycle import Event
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Denied, Polled, PollOutcome, Transient, Unknown, task_transition
from runner.worker.ports import Api, Clock, JobStore, Keys

_NO_KEY = Denied(Failure(FailureClass.AUTH, "no usable key is left to query the task with"))


class Poller(Struct, frozen=True):
    """Queries the tasks of submitted jobs."""

    api: Api
    keys: Keys
    store: JobStore
    clock: Clock

    async def poll(self, job: Job) -> PollOutcome:
        """
        Query a submitted job's task, and save the change if there is one.

        Raises:
            RunnerError: The store can't be written.
        """
        # The id is on disk before it is used, so that no task is ever known only to a process that may die.
        await self.store.durable(job.commit)
        outcome = await query_task(job, api=self.api, keys=self.keys)
        job.polls += 1
        if not isinstance(outcome, Unknown):
            job.unknown_polls = 0
        if isinstance(outcome, Polled):
            self._record(job, outcome)
        return outcome

    def _record(self, job: Job, outcome: Polled) -> None:
        task = outcome.task
        job.remote_status = task.raw_status or task.status.value
        if not task.is_known_status:
            job.warn(
                f"the API reports an undocumented status, {task.raw_status!r}; it counts as {task.status}"
            )
        event, failure = task_transition(task)
        if event is None:
            return
        job.transition(event)
        job.completed_at = task.completed_at
        job.error = failure
        if event is Event.REMOTE_FAILED:
            job.finished_at = self.clock.wall()
        elif job.submitted_at is not None:
            job.generate_s = max(0.0, self.clock.wall() - job.submitted_at)
        self.store.save(job)


async def query_task(job: Job, *, api: Api, keys: Keys) -> PollOutcome:
    """
    Query a job's task, and save nothing.

    Lookups are per account (fact F7), so any key of the same user finds the task, and a key of another
    account does not know it: that the task does not exist counts only from the key that made it, or
    from all keys.

    If the answer to the submission named two different ids, they are tried in turn until one is known
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
    """Combine the answers when no key could see the task."""
    if unknown is not None:
        return Transient(denied[0].failure) if denied else unknown
    # That a key is unknown counts only if every key is.
    others = [answer for answer in denied if answer.failure.cls is not FailureClass.AUTH]
    return next(iter(others or denied), _NO_KEY)


def _swap_id(job: Job, outcome: PollOutcome) -> PollOutcome:
    if isinstance(outcome, Unknown) and job.other_task_id is not None:
        job.task_id, job.other_task_id = job.other_task_id, job.task_id
    return outcome
