"""Finished tasks whose assets are to be fetched, those first whose addresses expire soonest."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial

from runner.core.asset_urls import expires_at
from runner.core.model import Job
from runner.core.outcomes import RemoteTask
from runner.core.stop import Stop, StopReason
from runner.engine.context import EngineContext
from runner.engine.events import DownloadProgress
from runner.engine.job_tasks import JobTasks
from runner.errors import DiskFull

BACKLOG_PER_DOWNLOAD = 50
"""
Finished tasks that may wait, for each download at once, before nothing more is submitted: their
addresses expire, so a slow host must not let them pile up without end.
"""


class Downloads:
    """The last part of a job's way: from its task's success to whole files. Holds no remote slot."""

    def __init__(self, context: EngineContext, *, ended: Callable[[], None]) -> None:
        self._context = context
        self._services = context.services
        self._most = context.settings.limits.downloads
        self._heap: list[tuple[float, int, Job, RemoteTask | None]] = []
        self._order = itertools.count()
        self._active: dict[int, Job] = {}
        self.tasks = JobTasks(context, ended=ended, released=lambda job: None)

    def __len__(self) -> int:
        return len(self._heap)

    def active(self) -> tuple[DownloadProgress, ...]:
        """Say how far the downloads under way are, in the order in which they began."""
        progress = self._services.delivery.progress
        return tuple(DownloadProgress(job.job_id, *progress(job)) for job in self._active.values())

    @property
    def backlog(self) -> int | None:
        """How many tasks wait, where they are too many; None where they are not."""
        return len(self._heap) if len(self._heap) >= BACKLOG_PER_DOWNLOAD * self._most else None

    def add(self, job: Job, task: RemoteTask | None) -> None:
        """
        Take a job whose task succeeded.

        Args:
            task: The answer that shows it; None for what an earlier run left, which has waited longest.
        """
        seen_at = self._services.clock.wall()
        urls = task.video_urls if task is not None else ()
        at = expires_at(urls[0], seen_at=seen_at) if urls else seen_at
        heapq.heappush(self._heap, (at, next(self._order), job, task))

    def schedule(self) -> None:
        """Start as many as may be under way at once."""
        while self._heap and len(self.tasks) < self._most:
            _, _, job, task = heapq.heappop(self._heap)
            self.tasks.start(partial(self._deliver, job, task), job)

    async def _deliver(self, job: Job, task: RemoteTask | None) -> None:
        before = job.state
        self._active[job.seq] = job
        try:
            await self._services.delivery.deliver(job, task)
        except DiskFull as error:
            # The job stays as it is, and its part file too: a later run goes on from there.
            self._context.stop(Stop(StopReason.DISK, error.message, error.hint))
            return
        finally:
            del self._active[job.seq]
            self._context.job_counts.record_transition(before, job)
        self._context.job_counts.record_end(job)
