"""The few jobs that are next to be submitted: read from the store as they are needed, by model."""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque
from dataclasses import dataclass, field

from runner.core.model import Job
from runner.store import query
from runner.store.query import Scope

_REFILL = 256


@dataclass(slots=True)
class _Lane:
    """What is left to submit of one model."""

    ready: deque[tuple[Job, str]] = field(default_factory=deque)
    deferred: list[tuple[float, int, Job, str]] = field(default_factory=list)
    after: tuple[int, int] = (-1, -1)
    unread: int = 0


class Window:
    """
    Pending jobs in manifest order, model by model; nothing else of them is in memory.

    A job that was refused for now comes back through `put_back` and goes first
    once its time has come.
    """

    def __init__(self, reader: sqlite3.Connection, scope: Scope) -> None:
        self._reader = reader
        self._scope = scope
        self._lanes = {
            model: _Lane(unread=count) for model, count in query.pending_by_model(reader, scope).items()
        }
        self._left = sum(lane.unread for lane in self._lanes.values())

    def __len__(self) -> int:
        return self._left

    @property
    def models(self) -> tuple[str, ...]:
        """The models that have jobs left, in the order of their first jobs."""
        return tuple(model for model, lane in self._lanes.items() if _count(lane))

    def by_model(self) -> dict[str, int]:
        """Count the jobs that are left, by model."""
        return {model: _count(lane) for model, lane in self._lanes.items()}

    def has_ready(self, model: str, now: float) -> bool:
        """Say whether a job of the model may be submitted now."""
        lane = self._lanes[model]
        return bool(lane.ready or lane.unread or (lane.deferred and lane.deferred[0][0] <= now))

    def next_due(self, now: float) -> float | None:
        """
        Say when time alone makes a job of another model ready; None where it makes none.

        A model whose first deferred job is due already waits for something else.
        """
        firsts = (lane.deferred[0][0] for lane in self._lanes.values() if lane.deferred)
        return min((due for due in firsts if due > now), default=None)

    def take(self, model: str, now: float) -> tuple[Job, str] | None:
        """Take the next job of a model with its request's text; None where nothing is ready after all."""
        lane = self._lanes[model]
        if lane.deferred and lane.deferred[0][0] <= now:
            _, _, job, text = heapq.heappop(lane.deferred)
            self._left -= 1
            return job, text
        if not lane.ready and lane.unread:
            self._refill(model, lane, now)
        if not lane.ready:
            return None
        self._left -= 1
        return lane.ready.popleft()

    def put_back(self, job: Job, text: str, *, due: float) -> None:
        """Take a job back that is to be submitted again, not before its time."""
        lane = self._lanes.setdefault(job.model, _Lane())
        heapq.heappush(lane.deferred, (due, job.seq, job, text))
        self._left += 1

    def _refill(self, model: str, lane: _Lane, now: float) -> None:
        found = query.pending(
            self._reader, model, after=lane.after, count=_REFILL, scope=self._scope, taken_up_at=now
        )
        lane.ready.extend(found)
        if len(found) < _REFILL:
            # What was counted at the start and is not there any more is not ours to submit.
            self._left -= lane.unread - len(found)
            lane.unread = 0
        else:
            lane.unread -= len(found)
            last = found[-1][0]
            lane.after = (last.index, last.seq)


def _count(lane: _Lane) -> int:
    return len(lane.ready) + len(lane.deferred) + lane.unread
