"""
Jobs to submit: one after the other as the limits allow, each exactly once; and new takes of jobs whose tasks failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf

from msgspec.structs import replace

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Accepted, KeyRefused, NoChannel, SubmitOutcome
from runner.core.retry import retry_wait_s
from runner.engine.admission import Admission, Admitted, NotAdmitted
from runner.engine.budget import Exhausted, Granted, MustWait
from runner.engine.context import EngineContext
from runner.engine.events import Notice
from runner.engine.progress import JobTasks, RunProgress, stop_for_uploads
from runner.errors import FileChanged, InputRefused, RunnerError
from runner.jsontext import dumps, loads
from runner.manifest.file_references import render_request
from runner.store.takes import takes
from runner.store.work_list import PendingJobs
from runner.worker.deliver import delivery_hints


class Submissions:
    """
    The first part of a job's path: until its task exists.

    Args:
        on_accepted: Gets each job whose task exists now.

    Attributes:
        limited_by: The limit that holds the next submission back, in words; empty if there is none.
        are_inputs_ready: Whether the inputs of the jobs are uploaded; nothing is submitted before.
        unsaved: Tasks that were paid for and could not be saved, as pairs of job id and task id.
    """

    def __init__(
        self,
        context: EngineContext,
        progress: RunProgress,
        admission: Admission,
        tasks: JobTasks,
        *,
        on_accepted: Callable[[Job], None],
    ) -> None:
        self._context = context
        self._progress = progress
        self._admission = admission
        self._on_accepted = on_accepted
        self._pending = PendingJobs(context.store.reader, context.job_filter)
        self.tasks = tasks
        self.limited_by = ""
        self.are_inputs_ready = context.inputs is None
        self.unsaved: list[tuple[str, str]] = []

    @property
    def left(self) -> int:
        """Jobs that this process may still submit."""
        return int(min(self._pending.left, self._progress.governor.left))

    @property
    def over_limit(self) -> int:
        """Jobs that only the limit keeps this process from submitting."""
        return self._pending.left - self.left

    def left_by_model(self) -> dict[str, int]:
        """Count the jobs that this process may still submit, by model; a limit counts for the first models first."""
        rest, left = self.left, {}
        for model, count in self._pending.by_model().items():
            left[model] = min(count, rest)
            rest -= left[model]
        return left

    def schedule(self, now: float, *, backlog: int | None) -> float:
        """
        Start what may be submitted now, and return when to look again; infinity if only an event can change anything.

        Args:
            backlog: Succeeded tasks that wait for downloads, if they are too many, or None.
        """
        while True:
            decision = self._admission_decision(now, backlog)
            if isinstance(decision, NotAdmitted):
                self.limited_by = decision.why
                return inf if decision.until is None else decision.until
            found = self._pending.pop(decision.model, now)
            if found is None:
                continue
            job, text = found
            granted = self._context.budget.reserve(job, text)
            if not isinstance(granted, Granted):
                self._pending.put_back(job, text)
                self._hold_back(granted)
                return inf
            job.cost = granted.cost
            self._admission.record_sent(job.seq, job.model, now)
            self.tasks.start(partial(self._submit, job, text, decision), job)

    def _hold_back(self, refused: MustWait | Exhausted) -> None:
        """Wait for what changes the budget, or stop: there is no money for the next job."""
        if isinstance(refused, Exhausted):
            self.limited_by = "budget"
            self._progress.stop(refused.stop)
        else:
            self.limited_by = refused.why

    def _admission_decision(self, now: float, backlog: int | None) -> Admitted | NotAdmitted:
        if self.left <= 0:
            return NotAdmitted(None, "")
        if not self.are_inputs_ready:
            return NotAdmitted(None, "uploads of inputs")
        if backlog is not None:
            return NotAdmitted(None, f"{backlog} succeeded tasks waiting for download")
        return self._admission.admit(self._pending, now)

    async def _submit(self, job: Job, text: str, admitted: Admitted) -> None:
        outcome: SubmitOutcome | None = None
        try:
            body = await self._body(job, text) if job.has_files else text.encode()
            if body is None:
                return
            outcome = await self._post(job, body, admitted.key)
        finally:
            if outcome is None:
                failure = job.error if job.state is State.UNCERTAIN else None
                self._admission.record_abandoned(job.seq, failure, self._context.clock.now())
        self._react(job, text, admitted, outcome)

    async def _body(self, job: Job, text: str) -> bytes | None:
        """Make the body of a request with local files; None if that failed, which is reported."""
        settings, inputs = self._context.settings, self._context.inputs
        # The task exists at the latest when its POST is answered, and is polled from then on.
        holds_s = settings.timeouts.submit_s + (job.timeout_s or settings.poll.timeout_s)
        try:
            if inputs is None:
                return await asyncio.to_thread(lambda: dumps(render_request(loads(text))))
            return await inputs.body(text, holds_s)
        except (FileChanged, InputRefused) as error:
            self._progress.governor.record_not_submitted(is_retried=False)
            self._context.budget.cancel(job)
            refused = isinstance(error, InputRefused)
            failure = Failure(
                FailureClass.MODERATION if refused else FailureClass.INVALID_REQUEST, error.message
            )
            self._progress.finish_unsuccessful(job, Event.RETRIES_EXHAUSTED, failure)
        except RunnerError as error:
            # The job stays as it is: nothing was sent.
            self._progress.governor.record_not_submitted(is_retried=False)
            self._context.budget.cancel(job)
            self._progress.stop(stop_for_uploads(error))
        return None

    async def _post(self, job: Job, body: bytes, key: str) -> SubmitOutcome:
        before = job.state
        try:
            return await self._context.submitter.submit(job, body, key)
        except RunnerError:
            if job.state is State.SUBMITTED and job.task_id is not None:
                self.unsaved.append((job.job_id, job.task_id))
            raise
        finally:
            self._progress.record_transition(before, job)

    def _react(self, job: Job, text: str, admitted: Admitted, outcome: SubmitOutcome) -> None:
        now = self._context.clock.now()
        stop = self._admission.record_outcome(job.seq, job.model, admitted.key, outcome, now)
        if stop is not None:
            self._progress.stop(stop)
        elif isinstance(outcome, KeyRefused):
            message = f"key {admitted.key} was refused and is no longer used: {outcome.failure.message}"
            self._context.observe(Notice("key_retired", message))
        if isinstance(outcome, Accepted):
            job.delivery_hints = delivery_hints(text)
            self._on_accepted(job)
            return
        self._admission.release_slot(job.seq)
        if job.state is State.PENDING:
            self._retry(job, text, outcome)
        else:
            self._progress.record_end(job)

    def _retry(self, job: Job, text: str, outcome: SubmitOutcome) -> None:
        """Defer a job whose POST made no task, or fail it once its retries are exhausted."""
        self._progress.governor.record_not_submitted(is_retried=True)
        # Throttling and an unreachable gateway are no fault of the job's: only "no channel" counts.
        wait_s = retry_wait_s(
            self._context.settings.retry,
            attempt=job.no_channel_posts if isinstance(outcome, NoChannel) else 1,
            retry_after_s=getattr(outcome, "retry_after_s", None),
            draw=self._context.draw(),
        )
        if wait_s is not None:
            self._pending.defer(job, text, due=self._context.clock.now() + wait_s)
            return
        assert job.error is not None
        self._progress.finish_unsuccessful(job, Event.RETRIES_EXHAUSTED, job.error)

    def take_again(self, job: Job) -> bool:
        """
        Make a job whose task just failed pending again; return whether that was done.

        That is done at most as often as `reroll` in the manifest says. A take is an attempt like any other: it waits
        for its turn, has its own durable intent, and is counted where attempts are. The failure that led to it is kept
        with the attempt that failed, so that no later process takes the job again for the same reason.
        """
        failure, store = job.error, self._context.store
        allowed = 0 if failure is None else self._context.settings.reroll.get(failure.cls, 0)
        if failure is None or not allowed or self._progress.stops:
            return False
        attempts = takes(store.reader, job.seq)
        if not attempts or not attempts[-1].made_task:
            return False
        before_this = [attempt.error for attempt in attempts if attempt.made_task and attempt.error]
        used = sum(error.cls is failure.cls for error in before_this)
        if used >= allowed:
            return False
        before = job.state
        job.state = advance(job.state, Event.RERUN)
        job.task_id = job.other_task_id = job.alias_id = job.odd_answer = job.finished_at = job.error = None
        store.save(job, replace(attempts[-1], error=failure))
        self._progress.record_transition(before, job)
        message = f"{job.job_id}: {failure.cls}, so it is submitted again and paid for (reroll {used + 1} of {allowed})"
        self._context.observe(Notice("reroll", message))
        pending = self._progress.counts[State.PENDING]
        self._progress.governor.record_end(State.PENDING, pending=pending, is_own=True)
        self._pending.defer(job, store.request_text(job), due=self._context.clock.now())
        return True
