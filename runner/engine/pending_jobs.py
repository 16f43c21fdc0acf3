"""The few jobs that are next to be submitted, by model; read from the store as they are needed."""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque

from msgspec import Struct, field

from runner.core.model import Job
from runner.store import work_list
from runner.store.work_list import JobFilter

_READ_AHEAD = 256


class _ModelQueue(Struct):
    """What is left to submit of one model."""

    ready: deque[tuple[Job, str]] = field(default_factory=deque)
    deferred: list[tuple[float, int, Job, str]] = field(default_factory=list)
    after: tuple[int, int] = (-1, -1)
    unread: int = 0

    def __len__(self) -> int:
        return len(self.ready) + len(self.deferred) + self.unread


class PendingJobs:
    """
    Pending jobs in manifest order, by model; only the next few are in memory.

    A job that must be submitted again comes back through `defer`, and is first in line
    once its time has come.

    Attributes:
        left: How many there are.
    """

    def __init__(self, reader: sqlite3.Connection, job_filter: JobFilter) -> None:
        self._reader = reader
        self._filter = job_filter
        counts = work_list.pending_by_model(reader, job_filter)
        self._queues = {model: _ModelQueue(unread=count) for model, count in counts.items()}
        self.left = sum(counts.values())

    def by_model(self) -> dict[str, int]:
        """Count the jobs that are left, by model."""
        return {model: len(queue) for model, queue in self._queues.items()}

    def readiness(self, now: float) -> list[tuple[str, bool]]:
        """Return each model that has jobs left, in the order of their first jobs, and whether one may be submitted now."""
        return [
            (model, bool(queue.ready or queue.unread or queue.deferred[0][0] <= now))
            for model, queue in self._queues.items()
            if queue.ready or queue.unread or queue.deferred
        ]

    def next_due(self, now: float) -> float | None:
        """
        Return when the next deferred job is due, or None.

        A model whose first deferred job is due already waits for something else.
        """
        firsts = (queue.deferred[0][0] for queue in self._queues.values() if queue.deferred)
        return min((due for due in firsts if due > now), default=None)

    def pop(self, model: str, now: float) -> tuple[Job, str] | None:
        """Remove and return the next job of a model with its request's text; None if nothing is ready after all."""
        queue = self._queues[model]
        if queue.deferred and queue.deferred[0][0] <= now:
            _, _, job, text = heapq.heappop(queue.deferred)
            self.left -= 1
            return job, text
        if not queue.ready and queue.unread:
            self._read_ahead(model, queue, now)
        if not queue.ready:
            return None
        self.left -= 1
        return queue.ready.popleft()

    def put_back(self, job: Job, text: str) -> None:
        """Put the job back that `pop` has just returned; it is first in line again."""
        self._queues[job.model].ready.appendleft((job, text))
        self.left += 1

    def defer(self, job: Job, text: str, *, due: float) -> None:
        """Add a job back that is to be submitted again, not before its time."""
        queue = self._queues.setdefault(job.model, _ModelQueue())
        heapq.heappush(queue.deferred, (due, job.seq, job, text))
        self.left += 1

    def _read_ahead(self, model: str, queue: _ModelQueue, now: float) -> None:
        found = work_list.pending(
            self._reader, model, after=queue.after, count=_READ_AHEAD, scope=self._filter, waiting_since=now
        )
        queue.ready.extend(found)
        if len(found) < _READ_AHEAD:
            # What was counted at the start and is no longer there is not ours to submit.
            self.left -= queue.unread - len(found)
            queue.unread = 0
        else:
            queue.unread -= len(found)
            last = found[-1][0]
            queue.after = (last.index, last.seq)
