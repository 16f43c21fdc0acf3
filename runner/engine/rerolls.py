"""New takes of jobs whose tasks failed, as far as the manifest lets the run pay for them by itself."""

from __future__ import annotations

from msgspec.structs import replace

from runner.core.lifecycle import Event
from runner.core.model import Job
from runner.engine.context import EngineContext, RunProgress
from runner.engine.events import Notice
from runner.engine.submissions import Submissions
from runner.store.takes import takes


class Rerolls:
    """
    Makes failed jobs pending again, at most as often as `reroll` in the manifest says.

    A take is an attempt like any other: it waits for its turn, has its own durable intent, and is counted where
    attempts are. The failure that led to it is kept with the attempt that failed, so that no later process takes
    the job again for the same reason.
    """

    def __init__(self, context: EngineContext, progress: RunProgress, submissions: Submissions) -> None:
        self._context = context
        self._progress = progress
        self._submissions = submissions

    def take_again(self, job: Job) -> bool:
        """Queue a job whose task just failed for another take; return whether it was queued."""
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
        job.transition(Event.RERUN)
        job.task_id = job.other_task_id = job.alias_id = job.odd_answer = job.finished_at = job.error = None
        store.save(job, replace(attempts[-1], error=failure))
        self._progress.record_transition(before, job)
        message = f"{job.job_id}: {failure.cls}, so it is submitted again and paid for (reroll {used + 1} of {allowed})"
        self._context.observe(Notice("reroll", message))
        self._submissions.add_again(job, store.request_text(job))
        return True
