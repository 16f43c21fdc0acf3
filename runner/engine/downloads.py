"""
Succeeded tasks whose assets are to be fetched: those whose addresses expire soonest come first.
"""

from __future__ import annotations

import heapq
import itertools
from functools import partial

from runner.core.addresses import expires_at
from runner.core.lifecycle import State
from runner.core.model import Job
from runner.core.outcomes import RemoteTask
from runner.core.stop import Stop, StopReason
from runner.engine.context import EngineContext
from runner.engine.events import DownloadProgress
from runner.engine.progress import JobTasks, RunProgress
from runner.errors import DiskFull

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

    def __init__(self, context: EngineContext, progress: RunProgress, tasks: JobTasks) -> None:
        self._clock = context.clock
        self._deliverer = context.deliverer
        self._progress = progress
        self._on_success = context.on_success
        self._max_downloads = context.settings.limits.downloads
        self.waiting: list[tuple[float, int, Job, RemoteTask | None]] = []
        self._order = itertools.count()
        self._active: dict[int, Job] = {}
        self.tasks = tasks

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
