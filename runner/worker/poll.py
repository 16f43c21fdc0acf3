"""Query one task, with the key that submitted it or, if that is refused, with the others."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from runner.core.lifecycle import Event, advance
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Denied, Polled, PollOutcome, Transient, Unknown, task_transition
from runner.core.sanitize import sanitize_line
from runner.core.wire_errors import MESSAGE_CHARS
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
        outcome = await query_task(job, api=self.api, keys=self.keys, task_owner=self.store.task_owner)
        job.polls += 1
        self._keep_answer(job, outcome)
        if not isinstance(outcome, Unknown):
            job.unknown_polls = 0
        if isinstance(outcome, Polled):
            self._record(job, outcome)
        return outcome

    def _keep_answer(self, job: Job, outcome: PollOutcome) -> None:
        """Keep an answer that was not understood, unless it says what the last one said."""
        if isinstance(outcome, Polled):
            odd = outcome.task.raw_status
        elif isinstance(outcome, Transient):
            odd = outcome.failure.message
        else:
            return
        if outcome.answer is not None and odd != job.odd_answer:
            job.odd_answer = odd
            self.store.save_answer(job, outcome.answer)

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
        job.state = advance(job.state, event)
        job.completed_at = task.completed_at
        job.error = failure
        if event is Event.REMOTE_FAILED:
            job.finished_at = self.clock.wall()
        elif job.submitted_at is not None:
            job.generate_s = max(0.0, self.clock.wall() - job.submitted_at)
        if task.usage is not None:
            self.store.save_usage(job, task.usage)
        self.store.save(job)


async def query_task(
    job: Job, *, api: Api, keys: Keys, task_owner: Callable[[str], str | None]
) -> PollOutcome:
    """
    Query a job's task, and save nothing.

    Lookups are per account (fact F7), so any key of the same user finds the task, and a key of another
    account does not know it: that the task does not exist counts only from the key that made it, or
    from all keys.

    If the answer to the submission named two different ids, they are tried in turn until one is known
    (fact F30).

    Args:
        task_owner: Returns the job of the run that has, or had, a task.
    """
    assert job.task_id is not None
    denied: list[Denied] = []
    unknown: Unknown | None = None
    for fingerprint in keys.for_task(job.key):
        outcome = await api.poll(job.task_id, keys.secret(fingerprint))
        if _is_foreign(job, outcome):
            outcome = await api.poll_afresh(job.task_id, keys.secret(fingerprint))
            if isinstance(outcome, Polled) and _is_foreign(job, outcome):
                outcome = _judge_foreign(job, outcome, task_owner)
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


def _is_foreign(job: Job, outcome: PollOutcome) -> bool:
    """Return whether an answer names tasks, and the job's is not among them (fact F121)."""
    if not isinstance(outcome, Polled) or not outcome.task.all_ids:
        return False
    named = outcome.task.all_ids
    return job.task_id not in named and {job.other_task_id, job.alias_id}.isdisjoint(named)


def _judge_foreign(job: Job, outcome: Polled, task_owner: Callable[[str], str | None]) -> PollOutcome:
    """
    Decide on an answer about another task that came on a connection of its own.

    Some gateways name the upstream's task there, so it is believed, unless that is another job's task, or the
    answer would end the job: its own task may still be running.
    """
    named = outcome.task.all_ids[0]
    shown = sanitize_line(named, max_chars=200)
    owner = next(filter(None, map(task_owner, outcome.task.all_ids)), None)
    if owner is None and outcome.task.error is None:
        job.alias_id = named
        job.warn(f"the API answers a query of task {job.task_id} with the name of another one, {shown}")
        return outcome
    message = f"the answer is about task {shown}" + (f" of the job {owner!r}" if owner else "")
    if outcome.task.error is not None:
        message += f", which {outcome.task.status.value}: {outcome.task.error.message}"
    return Transient(Failure(FailureClass.UNAVAILABLE, message[:MESSAGE_CHARS]), answer=outcome.answer)


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
