"""
Tasks that wait for their next poll: entries of a heap, and a bounded number of requests.

Lost tasks are polled once more, before anything else: one that is known again must not be paid for again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from msgspec.structs import replace

from runner.core import polling
from runner.core.lifecycle import Event, State, advance
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Denied, Polled, PollOutcome, RemoteTask, Transient, Unknown
from runner.core.pacing import Pacer
from runner.core.polling import Durations
from runner.core.units import format_count, format_duration
from runner.engine.admission import Admission, stop_for_refused_key
from runner.engine.context import EngineContext
from runner.engine.events import Notice, Observer
from runner.engine.progress import JobTasks, RunProgress
from runner.store.costs import attach_costs
from runner.store.store import Store
from runner.worker.poll import Poller
from runner.worker.ports import Clock

MAX_CONCURRENT_POLLS = 64
REFUSALS_TO_END = 3
"""Polls in a row whose keys were all refused before no task is polled any more."""


class Polls:
    """
    The second part of a job's path: from its task id until an answer shows how the task ended.

    Args:
        on_succeeded: Gets each job whose task succeeded, with the answer that shows it.

    Attributes:
        waiting: A heap of the tasks that wait for their next poll.
    """

    def __init__(
        self,
        context: EngineContext,
        progress: RunProgress,
        admission: Admission,
        tasks: JobTasks,
        *,
        on_succeeded: Callable[[Job, RemoteTask], None],
        takes_again: Callable[[Job], bool],
    ) -> None:
        self._context = context
        self._progress = progress
        self._admission = admission
        self._on_succeeded = on_succeeded
        self._takes_again = takes_again
        self.waiting: list[tuple[float, int, Job]] = []
        self._active: dict[int, Job] = {}
        self._pacer = Pacer(context.settings.limits.poll_per_s)
        self._durations: dict[str, Durations] = {}
        self._seen_running_s: dict[int, float] = {}
        self._held_until: dict[str | None, float] = {}
        self._refused_in_row = 0
        self._has_more_keys = len(context.key_pool.fingerprints) > 1
        self.tasks = tasks

    def durations_s(self) -> dict[str, float]:
        """Return how long tasks took in this process, by model."""
        return {model: seen.mean_s for model, seen in self._durations.items()}

    @property
    def active(self) -> tuple[Job, ...]:
        """All jobs whose tasks exist and have not been seen to end."""
        return tuple(self._active.values())

    def resume(self, job: Job) -> None:
        """Add a job of an earlier process: its task has waited long enough, so it is polled as soon as possible."""
        self._active[job.seq] = job
        heapq.heappush(self.waiting, (self._context.clock.now(), job.seq, job))

    def add(self, job: Job) -> None:
        """Schedule the first poll of a job."""
        self._active[job.seq] = job
        self._seen_running_s[job.seq] = 0.0
        self._schedule_next(job, None, self._context.clock.now())

    def _schedule_next(self, job: Job, outcome: PollOutcome | None, now: float) -> None:
        """Schedule the poll after an outcome; after None, the first."""
        at = now + self._wait_s(job, outcome, now - job.waiting_since)
        heapq.heappush(self.waiting, (at, job.seq, job))

    def _wait_s(self, job: Job, outcome: PollOutcome | None, age_s: float) -> float:
        policy, draw = self._context.settings.poll, self._context.draw()
        if isinstance(outcome, Transient | Denied):
            job.uninformative_polls += 1
            wait_s = polling.poll_backoff_s(
                policy,
                failures=job.uninformative_polls,
                draw=draw,
                retry_after_s=outcome.retry_after_s if isinstance(outcome, Transient) else None,
            )
            if not self._admission.has_contact:
                # Whether the gateway can be reached at all must be clear soon.
                wait_s = min(wait_s, self._context.settings.retry.base_s)
            # The last poll comes at the time-out, so that no task is given up unseen.
            return min(wait_s, max(self._timeout_s(job) - age_s, 0.0))
        job.uninformative_polls = 0
        return polling.next_poll_s(
            policy,
            polls=job.polls,
            age_s=age_s,
            draw=draw,
            durations=self._durations.get(job.model),
            poll_after_s=outcome.poll_after_s if isinstance(outcome, Polled) else None,
            timeout_s=job.timeout_s,
        )

    def schedule(self, now: float) -> float:
        """Start the polls that are due, and return when to look again; infinity if only an event can change anything."""
        while self.waiting and len(self.tasks.busy) < MAX_CONCURRENT_POLLS:
            due, _, job = self.waiting[0]
            if due > now:
                return due
            deadline = job.waiting_since + self._timeout_s(job)
            # No wait that the server asks for keeps a task from its last poll, so that none is given up unseen.
            held_until = self._held_until.get(self._account_of(job), due)
            if held_until > now and deadline > now:
                # Others may be due before.
                heapq.heapreplace(self.waiting, (min(held_until, deadline), job.seq, job))
                continue
            ready_at = self._pacer.opens_at
            if ready_at > now:
                ready_at = min(ready_at, max(deadline, self._pacer.rate_opens_at))
            last_at = deadline + self._context.settings.poll.max_interval_s
            if ready_at > now and last_at > now:
                return min(ready_at, last_at)
            heapq.heappop(self.waiting)
            if ready_at > now:
                # Give up some time after the deadline even if the rate allows no poll.
                self._finish(job, Event.POLL_TIMED_OUT, _timed_out(None, self._timeout_s(job)))
                continue
            self._pacer.record_sent(now)
            self.tasks.start(partial(self._poll, job), job)
        return inf

    async def _poll(self, job: Job) -> None:
        sent_at = self._context.clock.now()
        before = job.state
        seen_running_s = self._seen_running_s.get(job.seq)
        try:
            outcome = await self._context.poller.poll(job)
        finally:
            if job.state is not before:
                self._release(job)
                self._progress.record_transition(before, job)
        now = self._context.clock.now()
        unanswered = None
        if isinstance(outcome, Transient) and outcome.failure.http_status is None:
            unanswered = outcome.failure
        stop = self._admission.record_contact(unanswered)
        if stop is not None:
            self._progress.stop(stop)
        if isinstance(outcome, Polled):
            self._pacer.record_accepted(now, now - sent_at)
            if job.state is before and seen_running_s is not None:
                self._seen_running_s[job.seq] = sent_at - job.waiting_since
            self._progress.governor.stall_timer.record_progress()
        elif isinstance(outcome, Transient) and outcome.is_throttled:
            self._record_throttled(job, outcome.retry_after_s, now, sent_at)
        if job.state is before:
            self._continue(job, outcome, now)
        elif job.state is State.DOWNLOADING:
            assert isinstance(outcome, Polled)
            self._learn_duration(job, seen_running_s, sent_at)
            self._on_succeeded(job, outcome.task)
        elif not self._takes_again(job):
            self._progress.record_end(job)

    def _record_throttled(self, job: Job, retry_after_s: float | None, now: float, sent_at: float) -> None:
        if retry_after_s:
            account = self._account_of(job)
            self._held_until[account] = max(self._held_until.get(account, 0.0), now + retry_after_s)
        self._pacer.record_throttled(now, sent_at=sent_at)

    def _account_of(self, job: Job) -> str | None:
        """Return whose limits hold for the polls of a job: limits are per account, and each key may have its own."""
        return job.key if self._has_more_keys else None

    def _learn_duration(self, job: Job, seen_running_s: float | None, sent_at: float) -> None:
        """
        Record between which ages a task ended.

        Args:
            seen_running_s: Its age at the poll before; None for a task of an earlier process.
            sent_at: When the poll was sent that showed the end.
        """
        if seen_running_s is not None:
            durations = self._durations.setdefault(job.model, Durations())
            durations.add(seen_running_s, sent_at - job.waiting_since)

    def _continue(self, job: Job, outcome: PollOutcome, now: float) -> None:
        """Schedule the next poll of a task that did not end, or give it up."""
        is_refused = isinstance(outcome, Denied) and outcome.failure.cls is FailureClass.AUTH
        self._refused_in_row = self._refused_in_row + 1 if is_refused else 0
        if isinstance(outcome, Denied) and is_refused:
            self._progress.stop(stop_for_refused_key(outcome.failure))
        if self._refused_in_row >= REFUSALS_TO_END:
            # No key is valid (fact F67): the tasks stay as they are for a process that has one.
            self.waiting.clear()
            return
        age_s = now - job.waiting_since
        if isinstance(outcome, Unknown) and self._is_lost(job, age_s):
            message = f"the API no longer knows the task: {outcome.failure.message}"
            self._finish(
                job,
                Event.REMOTE_FAILED,
                replace(outcome.failure, cls=FailureClass.LOST, message=message),
            )
        elif polling.is_overdue(age_s, self._timeout_s(job)):
            self._finish(job, Event.POLL_TIMED_OUT, _timed_out(outcome, self._timeout_s(job)))
        else:
            self._schedule_next(job, outcome, now)

    def _is_lost(self, job: Job, age_s: float) -> bool:
        tolerance_s = self._context.settings.timeouts.unknown_task_s
        job.unknown_polls = polling.count_unknown(job.unknown_polls, age_s=age_s, tolerance_s=tolerance_s)
        return job.unknown_polls >= polling.UNKNOWNS_UNTIL_LOST

    def _finish(self, job: Job, event: Event, failure: Failure) -> None:
        self._release(job)
        self._progress.finish_unsuccessful(job, event, failure)

    def _release(self, job: Job) -> None:
        self._active.pop(job.seq, None)
        self._seen_running_s.pop(job.seq, None)
        self._admission.release_slot(job.seq)

    def _timeout_s(self, job: Job) -> float:
        return self._context.settings.poll.timeout_s if job.timeout_s is None else job.timeout_s


def _timed_out(outcome: PollOutcome | None, timeout_s: float) -> Failure:
    if outcome is None:
        why = "429s delayed the polls"
    elif isinstance(outcome, Polled):
        why = f"the task was still {outcome.task.raw_status or outcome.task.status}"
    else:
        why = f"the last answer was: {outcome.failure.message}"
    return Failure(FailureClass.POLL_TIMEOUT, f"not finished within {format_duration(timeout_s)}; {why}")


async def poll_lost_tasks(
    lost: Sequence[Job],
    store: Store,
    poller: Poller,
    clock: Clock,
    observe: Observer,
    *,
    poll_per_s: float,
    resubmit: bool,
) -> None:
    """
    Poll the lost task of each job once, and save what that shows; any other answer than the task leaves its job as it is.

    Args:
        resubmit: Whether jobs whose tasks are still unknown become pending, because a person asked for that.

    Raises:
        RunnerError: The store can't be written.
    """
    attach_costs(store.reader, lost)
    pacer, found, commit = Pacer(poll_per_s), 0, 0
    for job in lost:
        await clock.sleep(max(0.0, pacer.opens_at - clock.now()))
        pacer.record_sent(clock.now())
        job.state = advance(job.state, Event.RESUMED)
        outcome = await poller.poll(job)
        if isinstance(outcome, Polled):
            found += 1
            if job.state is State.SUBMITTED:
                job.error = job.finished_at = None
                store.save(job)
        elif not isinstance(outcome, Unknown):
            # The gateway shows nothing now, and must not hold the run up for each of the others.
            observe(Notice("lost", f"lost tasks can't be polled now: {outcome.failure.message}"))
            break
        elif resubmit:
            _requeue(job)
            store.save(job)
        commit = job.commit
    await store.durable(commit)
    message = f"asked again for {format_count(len(lost), 'lost task')}: {found:,} known again"
    observe(Notice("lost", message))


def _requeue(job: Job) -> None:
    """Give up the task permanently; its id remains in the job's attempt."""
    job.state = advance(job.state, Event.REMOTE_FAILED)
    job.state = advance(job.state, Event.RERUN)
    job.task_id = job.other_task_id = None
