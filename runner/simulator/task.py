"""A task of the simulator, and its state at a given time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from runner.core.model import Json
from runner.simulator.faults import Fault, RequestKind, fault_at
from runner.simulator.scenario import Rule, TaskBehavior, TaskEnd
from runner.simulator.video import VideoSpec

_QUEUED_SHARE = 0.2
"""The share of the time for a video that its task is queued."""


class Phase(StrEnum):
    """The state of a task; each shape has its own words for it."""

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
        video_options: The fields of the request that describe the video.
        created_at: In seconds since 1970.
        generate_s: How long the video takes.
        request_counts: How many requests of each kind the task has received.
        issued: How many signed URLs were issued; each contains its number.
        revoked: URLs up to this number are refused.
    """

    task_id: str
    model: str
    video: VideoSpec
    video_options: Mapping[str, Json]
    rule: Rule
    created_at: float
    generate_s: float
    request_counts: Counter[RequestKind] = field(default_factory=Counter)
    issued: int = 0
    revoked: int = 0

    def phase_at(self, time: float) -> Phase | None:
        """Return the phase at a time, or None if the API does not know the task."""
        return phase(self.rule.task, self.generate_s, time - self.created_at)

    def progress_at(self, time: float) -> int:
        """Return how much of the video is done, from 0 to 100."""
        return min(100, max(0, int(100 * (time - self.created_at) / max(self.generate_s, 0.001))))

    def next_fault(self, kind: RequestKind) -> Fault | None:
        """Count one more request, and return the fault that applies to it."""
        count = self.request_counts[kind]
        self.request_counts[kind] += 1
        return fault_at(self.rule.faults.get(kind, ()), count)


def phase(behavior: TaskBehavior, generate_s: float, age_s: float) -> Phase | None:
    """
    Return the phase of a task of a given age, or None if the API does not know the task.

    >>> phase(TaskBehavior(unknown_s=1), 10, 0.5), phase(TaskBehavior(), 10, 5), phase(TaskBehavior(missing_s=1), 10, 0.5)
    (<Phase.UNKNOWN: 'unknown'>, <Phase.RUNNING: 'running'>, None)
    """
    if behavior.end is TaskEnd.LOST or age_s < behavior.missing_s:
        return None
    if age_s < behavior.unknown_s:
        return Phase.UNKNOWN
    if age_s < generate_s * _QUEUED_SHARE:
        return Phase.QUEUED
    if age_s < generate_s or behavior.end is TaskEnd.NEVER:
        return Phase.RUNNING
    return Phase.FAILED if behavior.end is TaskEnd.MODERATION else Phase(behavior.end)
