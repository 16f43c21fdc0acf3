"""The coroutines of one kind of step; an error in one job's step does not affect other jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass, Job
from runner.engine.context import RunProgress, stop_for_error, stop_for_store_error
from runner.errors import DiskFull, RunDirError, RunnerError

log = logging.getLogger(__name__)


class JobTasks:
    """
    The steps of one kind that are in progress.

    Args:
        on_step_end: Called after each step, however it ended.
        release_slot: Called with a job whose step a bug ended, to free its remote slot if it has one.
    """

    def __init__(
        self,
        progress: RunProgress,
        *,
        on_step_end: Callable[[], None],
        release_slot: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._progress = progress
        self._on_step_end = on_step_end
        self._release_slot = release_slot
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, step: Callable[[], Awaitable[None]], job: Job) -> None:
        """Begin a step of a job."""
        task = asyncio.create_task(self._guarded(step, job), name=job.job_id)
        self._tasks.add(task)
        # Not at the end of the coroutine: one that is cancelled before its first line has no end.
        task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Cancel every step in progress."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is in progress."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_step_end()

    async def _guarded(self, step: Callable[[], Awaitable[None]], job: Job) -> None:
        try:
            await step()
        except (DiskFull, RunDirError, OSError) as error:
            self._progress.stop(stop_for_error(error))
        except asyncio.CancelledError:
            # A POST that was abandoned left its job uncertain; any other job stays as it is.
            if job.state is State.UNCERTAIN:
                self._progress.record_end(job)
            raise
        except Exception as error:
            log.exception("a bug in runner ended job %s", job.job_id)
            self._record_crash(job, error)

    def _record_crash(self, job: Job, error: Exception) -> None:
        """End a job as its state allows, and nothing else of the run."""
        self._release_slot(job)
        if job.state.has_ended:
            self._progress.record_end(job)
            return
        failure = Failure(FailureClass.INTERNAL, f"a bug in runner: {type(error).__name__}: {error}"[:500])
        try:
            self._progress.finish_unsuccessful(job, Event.CRASHED, failure)
        except RunnerError as store_error:
            self._progress.stop(stop_for_store_error(store_error))
