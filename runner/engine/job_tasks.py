"""The coroutines under way of one kind, with an owner, and one job's trouble kept from the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass, Job
from runner.engine.context import EngineContext, stop_for_store_error
from runner.errors import DiskFull, RunDirError, RunnerError

log = logging.getLogger(__name__)


class JobTasks:
    """
    A bounded set of steps.

    Args:
        ended: Called after each step, whatever came of it.
        released: Called with a job whose remote slot, if it has one, a bug of ours frees.
    """

    def __init__(
        self, context: EngineContext, *, ended: Callable[[], None], released: Callable[[Job], None]
    ) -> None:
        self._context = context
        self._ended = ended
        self._released = released
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
        """Give up the requests under way."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ended()

    async def _guarded(self, step: Callable[[], Awaitable[None]], job: Job) -> None:
        try:
            await step()
        except (DiskFull, RunDirError) as error:
            self._context.stop(stop_for_store_error(error))
        except asyncio.CancelledError:
            # A POST that was given up left its job in doubt; anything else stays as it is.
            if job.state is State.UNCERTAIN:
                self._context.job_counts.record_end(job)
            raise
        except Exception as error:
            log.exception("a bug in runner ended job %s", job.job_id)
            self._crashed(job, error)

    def _crashed(self, job: Job, error: Exception) -> None:
        """Bring a job to rest, as its state allows, and nothing else of the run."""
        self._released(job)
        tally = self._context.job_counts
        if job.state.has_ended:
            tally.record_end(job)
            return
        failure = Failure(FailureClass.INTERNAL, f"a bug in runner: {type(error).__name__}: {error}"[:500])
        try:
            tally.finish_unsuccessful(job, Event.CRASHED, failure)
        except RunnerError as trouble:
            self._context.stop(stop_for_store_error(trouble))
