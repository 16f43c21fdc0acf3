"""The few jobs that are next to be submitted: read from the store as they are needed, by model."""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque

from msgspec import Struct, field

from runner.core.model import Job
from runner.store import query
from runner.store.query import JobFilter

_REFILL = 256


class _ModelQueue(Struct):
    """What is left to submit of one model."""

    ready: deque[tuple[Job, str]] = field(default_factory=deque)
    deferred: list[tuple[float, int, Job, str]] = field(default_factory=list)
    after: tuple[int, int] = (-1, -1)
    unread: int = 0


class PendingJobs:
    """
    Pending jobs in manifest order, model by model; nothing else of them is in memory.

    A job that was refused for now comes back through `put_back` and goes first
    once its time has come.
    """

    def __init__(self, reader: sqlite3.Connection, scope: JobFilter) -> None:
        self._reader = reader
        self._scope = scope
        self._queues = {
            model: _ModelQueue(unread=count) for model, count in query.pending_by_model(reader, scope).items()
        }
        self._left = sum(queue.unread for queue in self._queues.values())

    def __len__(self) -> int:
        return self._left

    @property
    def models(self) -> tuple[str, ...]:
        """The models that have jobs left, in the order of their first jobs."""
        return tuple(model for model, queue in self._queues.items() if _count(queue))

    def by_model(self) -> dict[str, int]:
        """Count the jobs that are left, by model."""
        return {model: _count(queue) for model, queue in self._queues.items()}

    def has_ready(self, model: str, now: float) -> bool:
        """Say whether a job of the model may be submitted now."""
        queue = self._queues[model]
        return bool(queue.ready or queue.unread or (queue.deferred and queue.deferred[0][0] <= now))

    def next_due(self, now: float) -> float | None:
        """
        Say when time alone makes a job of another model ready; None where it makes none.

        A model whose first deferred job is due already waits for something else.
        """
        firsts = (queue.deferred[0][0] for queue in self._queues.values() if queue.deferred)
        return min((due for due in firsts if due > now), default=None)

    def take(self, model: str, now: float) -> tuple[Job, str] | None:
        """Take the next job of a model with its request's text; None where nothing is ready after all."""
        queue = self._queues[model]
        if queue.deferred and queue.deferred[0][0] <= now:
            _, _, job, text = heapq.heappop(queue.deferred)
            self._left -= 1
            return job, text
        if not queue.ready and queue.unread:
            self._refill(model, queue, now)
        if not queue.ready:
            return None
        self._left -= 1
        return queue.ready.popleft()

    def put_back(self, job: Job, text: str, *, due: float) -> None:
        """Take a job back that is to be submitted again, not before its time."""
        queue = self._queues.setdefault(job.model, _ModelQueue())
        heapq.heappush(queue.deferred, (due, job.seq, job, text))
        self._left += 1

    def _refill(self, model: str, queue: _ModelQueue, now: float) -> None:
        found = query.pending(
            self._reader, model, after=queue.after, count=_REFILL, scope=self._scope, waiting_since=now
        )
        queue.ready.extend(found)
        if len(found) < _REFILL:
            # What was counted at the start and is not there any more is not ours to submit.
            self._left -= queue.unread - len(found)
            queue.unread = 0
        else:
            queue.unread -= len(found)
            last = found[-1][0]
            queue.after = (last.index, last.seq)


def _count(queue: _ModelQueue) -> int:
    return len(queue.ready) + len(queue.deferred) + queue.unread
