"""Jobs that are to be submitted: one after the other as the limits allow, each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import Accepted, KeyRefused, NoChannel, SubmitOutcome
from runner.core.retry import retry_wait_s
from runner.engine.admission import Admission, Admitted, NotAdmitted
from runner.engine.context import EngineContext
from runner.engine.events import Notice
from runner.engine.job_tasks import JobTasks
from runner.engine.pending_jobs import PendingJobs
from runner.errors import RunnerError
from runner.worker.deliver import delivery_hints
from runner.worker.submit import submit


class Submissions:
    """
    The first part of a job's way.

    Args:
        accepted: Gets each job whose task exists now.
        ended: Called after each step.

    Attributes:
        limited_by: Which limit holds the next submission back, in words; empty where none does.
        unsaved: Tasks that were paid for and could not be written down, as pairs of job id and task id.
    """

    def __init__(
        self,
        context: EngineContext,
        admission: Admission,
        *,
        accepted: Callable[[Job], None],
        ended: Callable[[], None],
    ) -> None:
        self._context = context
        self._services = context.services
        self._admission = admission
        self._accepted = accepted
        self._pending = PendingJobs(context.services.store.reader, context.options.scope)
        self._submitted = 0
        self.tasks = JobTasks(context, ended=ended, released=lambda job: admission.release_slot(job.seq))
        self.limited_by = ""
        self.unsaved: list[tuple[str, str]] = []

    @property
    def left(self) -> int:
        """Jobs that this process may still submit."""
        limit = self._context.options.limit
        return len(self._pending) if limit is None else min(len(self._pending), limit - self._submitted)

    def left_by_model(self) -> dict[str, int]:
        """Say how many of them there are of each model, the first models first where a limit cuts them short."""
        most, left = self.left, {}
        for model, count in self._pending.by_model().items():
            left[model] = min(count, most)
            most -= left[model]
        return left

    def schedule(self, now: float, *, backlog: int | None) -> float | None:
        """
        Start what may be submitted now, and say when to look again.

        Args:
            backlog: Finished tasks that wait for downloads, where they are too many; None where they are not.
        """
        while True:
            verdict = self._admission_decision(now, backlog)
            if isinstance(verdict, NotAdmitted):
                self.limited_by = verdict.why
                return verdict.until
            taken = self._pending.take(verdict.model, now)
            if taken is None:
                continue
            job, text = taken
            self._submitted += 1
            self._admission.record_sent(job.seq, job.model, now)
            self.tasks.start(partial(self._submit, job, text, verdict), job)

    def _admission_decision(self, now: float, backlog: int | None) -> Admitted | NotAdmitted:
        if self.left <= 0:
            return NotAdmitted(None, "")
        if backlog is not None:
            return NotAdmitted(None, f"{backlog} finished tasks wait for their downloads")
        return self._admission.admit(self._pending, now)

    async def _submit(self, job: Job, text: str, admitted: Admitted) -> None:
        outcome: SubmitOutcome | None = None
        try:
            body = await self._body(job, text)
            if body is None:
                return
            outcome = await self._post(job, body, admitted.key)
        finally:
            if outcome is None:
                doubt = job.error if job.state is State.UNCERTAIN else None
                self._admission.record_abandoned(job.seq, doubt, self._services.clock.now())
        self._react(job, text, admitted, outcome)

    async def _post(self, job: Job, body: bytes, key: str) -> SubmitOutcome:
        before = job.state
        rooms = self._services
        try:
            return await submit(
                job, body, key, api=rooms.api, keys=rooms.keys, store=rooms.store, clock=rooms.clock
            )
        except RunnerError:
            if job.state is State.SUBMITTED and job.task_id is not None:
                self.unsaved.append((job.job_id, job.task_id))
            raise
        finally:
            self._context.job_counts.record_transition(before, job)

    def _react(self, job: Job, text: str, admitted: Admitted, outcome: SubmitOutcome) -> None:
        stop = self._admission.record_outcome(
            job.seq, job.model, admitted.key, outcome, self._services.clock.now()
        )
        if stop is not None:
            self._context.stop(stop)
        elif isinstance(outcome, KeyRefused):
            message = f"key {admitted.key} is used no more: {outcome.failure.message}"
            self._services.observe(Notice("key_retired", message))
        if isinstance(outcome, Accepted):
            job.delivery_hints = delivery_hints(text)
            self._accepted(job)
            return
        self._admission.release_slot(job.seq)
        if job.state is State.PENDING:
            self._requeue(job, text, outcome)
        else:
            self._context.job_counts.record_end(job)

    async def _body(self, job: Job, text: str) -> bytes | None:
        if not job.has_files:
            return text.encode()
        try:
            return await asyncio.to_thread(self._services.render, text)
        except RunnerError as error:
            self._submitted -= 1
            failure = Failure(FailureClass.INVALID_REQUEST, error.message)
            self._context.job_counts.finish_unsuccessful(job, Event.RETRIES_EXHAUSTED, failure)
            return None

    def _requeue(self, job: Job, text: str, outcome: SubmitOutcome) -> None:
        """Put a job back whose POST made no task, or fail it once its tries are used up."""
        self._submitted -= 1
        # Throttling and a dead line are no fault of the job's: only "no channel" counts its tries.
        wait_s = retry_wait_s(
            self._context.settings.retry,
            attempt=job.no_channel_posts if isinstance(outcome, NoChannel) else 1,
            retry_after_s=getattr(outcome, "retry_after_s", None),
            draw=self._services.draw(),
        )
        if wait_s is not None:
            self._pending.put_back(job, text, due=self._services.clock.now() + wait_s)
            return
        assert job.error is not None
        self._context.job_counts.finish_unsuccessful(job, Event.RETRIES_EXHAUSTED, job.error)
