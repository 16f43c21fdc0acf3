"""The coroutines of one kind of step; an error in one job's step does not affect other jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass, Job
from runner.engine.context import RunProgress, stop_for_error, stop_for_store_error
from runner.errors import DiskFull, ObjectStoreError, RunDirError, RunnerError

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]


class JobTasks:
    """
    The steps of one kind that are in progress.

    A task that has ended its step waits for the next one: a new task for each took a tenth of a job's time.

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
        self._busy: set[asyncio.Task[None]] = set()
        self._idle: list[tuple[asyncio.Task[None], asyncio.Future[tuple[Step, Job]]]] = []
        self._has_none: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._busy)

    def start(self, step: Step, job: Job) -> None:
        """Begin a step of a job."""
        if self._idle:
            task, given = self._idle.pop()
            given.set_result((step, job))
        else:
            task = asyncio.create_task(self._work((step, job)))
            # Not at the end of the coroutine: one that is cancelled before its first line has no end.
            task.add_done_callback(self._record_step_end)
        self._busy.add(task)

    def cancel(self) -> None:
        """Cancel every step in progress."""
        for task in self._busy:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is in progress, and end the tasks; nothing is started any more."""
        while self._busy:
            self._has_none = asyncio.get_running_loop().create_future()
            await self._has_none
        idle = [task for task, _ in self._idle]
        self._idle.clear()
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)

    async def _work(self, given: tuple[Step, Job]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        while True:
            step, job = given
            try:
                await step()
            except (DiskFull, RunDirError, ObjectStoreError, OSError) as error:
                self._progress.stop(stop_for_error(error))
            except asyncio.CancelledError:
                # A POST that was abandoned left its job uncertain; any other job stays as it is.
                if job.state is State.UNCERTAIN:
                    self._progress.record_end(job)
                raise
            except Exception as error:
                log.exception("a bug in runner ended job %s", job.job_id)
                self._record_crash(job, error)
            # The step may hold a large request.
            del given, step, job
            following: asyncio.Future[tuple[Step, Job]] = loop.create_future()
            self._idle.append((task, following))
            self._record_step_end(task)
            given = await following

    def _record_step_end(self, task: asyncio.Task[None]) -> None:
        if task not in self._busy:
            return
        self._busy.discard(task)
        if not self._busy and self._has_none is not None and not self._has_none.done():
            self._has_none.set_result(None)
        self._on_step_end()

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
