"""A task of the simulator, and what there is to see of it at a given moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from runner.core.model import Json
from runner.simulator.faults import Fault, Place, fault_at
from runner.simulator.scenario import Rule, TaskBehavior, TaskEnd
from runner.simulator.video import VideoSpec

_QUEUED_SHARE = 0.2
"""Of the time that a video takes, how much its task waits in the queue."""


class Phase(StrEnum):
    """Where a task is; each shape has its own words for these."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Task(Struct):
    """
    A task, which was paid for.

    Attributes:
        asked: What the request says of the picture: size, ratio, seconds, return_last_frame, generate_audio, draft.
        created_at: Seconds since 1970.
        generate_s: How long the video takes.
        turns: How many requests of each kind the task has met.
        issued: How many signed addresses were given out; each carries its number.
        revoked: Addresses up to this number are refused.
    """

    task_id: str
    model: str
    video: VideoSpec
    asked: Mapping[str, Json]
    rule: Rule
    created_at: float
    generate_s: float
    turns: Counter[Place] = field(default_factory=Counter)
    issued: int = 0
    revoked: int = 0

    def phase_at(self, at: float) -> Phase | None:
        """Return where the task is, or None where the API does not know it."""
        return phase(self.rule.task, self.generate_s, at - self.created_at)

    def progress_at(self, at: float) -> int:
        """Return how far the video is, from 0 to 100."""
        return min(100, max(0, int(100 * (at - self.created_at) / max(self.generate_s, 0.001))))

    def next_fault(self, place: Place) -> Fault | None:
        """Count one more request, and return the fault that befalls it."""
        turn = self.turns[place]
        self.turns[place] += 1
        return fault_at(self.rule.faults.get(place, ()), turn)


def phase(plot: TaskBehavior, generate_s: float, age_s: float) -> Phase | None:
    """
    Return where a task of a given age is, or None where the API does not know it.

    >>> phase(TaskBehavior(unknown_s=1), 10, 0.5), phase(TaskBehavior(), 10, 5), phase(TaskBehavior(missing_s=1), 10, 0.5)
    (<Phase.UNKNOWN: 'unknown'>, <Phase.RUNNING: 'running'>, None)
    """
    if plot.end is TaskEnd.LOST or age_s < plot.missing_s:
        return None
    if age_s < plot.unknown_s:
        return Phase.UNKNOWN
    if age_s < generate_s * _QUEUED_SHARE:
        return Phase.QUEUED
    if age_s < generate_s or plot.end is TaskEnd.NEVER:
        return Phase.RUNNING
    return Phase.FAILED if plot.end is TaskEnd.MODERATION else Phase(plot.end)
