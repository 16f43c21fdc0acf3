"""
The coroutines of one kind of step, such as downloads; an error in one job's step does not affect other jobs.

Of succeeded tasks whose assets are to be fetched, those whose addresses expire soonest come first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from runner.core.addresses import expires_at
from runner.core.lifecycle import Event, State
from runner.core.model import Failure, FailureClass, Job
from runner.core.outcomes import RemoteTask
from runner.core.stop import Stop, StopReason
from runner.engine.context import EngineContext, RunProgress, stop_for_error, stop_for_store_error
from runner.engine.events import DownloadProgress
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

    Attributes:
        busy: The tasks that are in a step.
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
        self.busy: set[asyncio.Task[None]] = set()
        self._idle: list[tuple[asyncio.Task[None], asyncio.Future[tuple[Step, Job]]]] = []
        self._has_none: asyncio.Future[None] | None = None

    def start(self, step: Step, job: Job) -> None:
        """Begin a step of a job."""
        if self._idle:
            task, given = self._idle.pop()
            given.set_result((step, job))
        else:
            task = asyncio.create_task(self._work((step, job)))
            # Not at the end of the coroutine: one that is cancelled before its first line has no end.
            task.add_done_callback(self._record_step_end)
        self.busy.add(task)

    def cancel(self) -> None:
        """Cancel every step in progress."""
        for task in self.busy:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no step is in progress, and end the tasks; nothing is started any more."""
        while self.busy:
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
        if task not in self.busy:
            return
        self.busy.discard(task)
        if not self.busy and self._has_none is not None and not self._has_none.done():
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


BACKLOG_PER_DOWNLOAD = 50
"""
Succeeded tasks that may wait, per concurrent download, before submissions pause: their addresses
expire, so a slow host must not let them pile up without a limit.
"""


class Downloads:
    """
    The last part of a job's path: from its task's success to complete files. Takes no remote slot.

    Attributes:
        waiting: A heap of the jobs whose downloads have not begun.
    """

    def __init__(
        self, context: EngineContext, progress: RunProgress, *, on_step_end: Callable[[], None]
    ) -> None:
        self._clock = context.clock
        self._deliverer = context.deliverer
        self._progress = progress
        self._on_success = context.on_success
        self._max_downloads = context.settings.limits.downloads
        self.waiting: list[tuple[float, int, Job, RemoteTask | None]] = []
        self._order = itertools.count()
        self._active: dict[int, Job] = {}
        self.tasks = JobTasks(progress, on_step_end=on_step_end)

    def active(self) -> tuple[DownloadProgress, ...]:
        """Return the progress of each download, in the order in which they began."""
        progress = self._deliverer.progress
        return tuple(DownloadProgress(job.job_id, *progress(job)) for job in self._active.values())

    def add(self, job: Job, task: RemoteTask | None) -> None:
        """
        Queue a job whose task succeeded.

        Args:
            task: The answer that shows it; None for a job of an earlier run, which has waited longest.
        """
        seen_at = self._clock.wall()
        urls = task.video_urls if task is not None else ()
        at = expires_at(urls[0], seen_at=seen_at) if urls else seen_at
        heapq.heappush(self.waiting, (at, next(self._order), job, task))

    def schedule(self) -> int | None:
        """Start as many as may be in progress at once; return how many tasks wait, if they are too many, or None."""
        while self.waiting and len(self.tasks.busy) < self._max_downloads:
            _, _, job, task = heapq.heappop(self.waiting)
            self.tasks.start(partial(self._deliver, job, task), job)
        return len(self.waiting) if len(self.waiting) >= BACKLOG_PER_DOWNLOAD * self._max_downloads else None

    def end_pauses(self) -> None:
        """Leave every download that waits to be tried again to a later run."""
        self._deliverer.pauses.end()

    async def _deliver(self, job: Job, task: RemoteTask | None) -> None:
        before = job.state
        self._active[job.seq] = job
        try:
            await self._deliverer.deliver(job, task)
        except DiskFull as error:
            # The job and its part file stay as they are, for a later run.
            self._progress.stop(Stop(StopReason.DISK, error.message, error.hint))
            return
        finally:
            del self._active[job.seq]
            self._progress.record_transition(before, job)
        self._progress.record_end(job)
        if job.state is State.SUCCEEDED:
            self._on_success(job)
