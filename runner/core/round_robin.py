"""Choose the model to submit a job of: round-robin, so that a slow model starves none, within every limit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class Limit(StrEnum):
    """What prevents the next job from being submitted."""

    IN_FLIGHT = "in_flight"
    RATE = "rate"
    MODEL_IN_FLIGHT = "model_in_flight"
    MODEL_RATE = "model_rate"
    NO_JOBS = "no_jobs"


class Queue(Struct, frozen=True):
    """
    The current state of one model, or of the run as a whole.

    Attributes:
        in_flight: Remote tasks that exist, or may exist.
        max_in_flight: Its limit, or None.
        opens_at: When its pacer allows the next request; None if it has no pacer of its own.
    """

    in_flight: int
    max_in_flight: int | None = None
    opens_at: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further task may exist."""
        return self.max_in_flight is not None and self.in_flight >= self.max_in_flight

    def is_open(self, now: float) -> bool:
        """Return whether its pacer allows a request now."""
        return self.opens_at is None or self.opens_at <= now


class ModelQueue(Queue, frozen=True):
    """
    The current state of one model.

    Attributes:
        has_jobs: Whether it has a job that is ready to be submitted.
    """

    model: str = ""
    has_jobs: bool = True


class Chosen(Struct, frozen=True):
    """Submit a job of this model now."""

    model: str


class Blocked(Struct, frozen=True):
    """
    Nothing can be submitted now.

    Attributes:
        until: When that changes without any event; None if a job has to end or become ready first.
    """

    by: Limit
    until: float | None = None


def choose_model(
    run: Queue, queues: Sequence[ModelQueue], *, after: str | None, now: float
) -> Chosen | Blocked:
    """
    Return the next model that has a job, a free slot and an open pacer.

    Args:
        queues: Every model, always in the same order.
        after: The model that was chosen last, or None.

    >>> queues = [ModelQueue(2, 2, model="slow"), ModelQueue(0, model="fast")]
    >>> choose_model(Queue(2, 8), queues, after="fast", now=0.0)
    Chosen(model='fast')
    >>> choose_model(Queue(8, 8), queues, after="fast", now=0.0)
    Blocked(by=<Limit.IN_FLIGHT: 'in_flight'>, until=None)
    """
    with_jobs = [queue for queue in _rotated(queues, after) if queue.has_jobs]
    if not with_jobs:
        return Blocked(Limit.NO_JOBS)
    if run.is_full:
        return Blocked(Limit.IN_FLIGHT)
    not_full = [queue for queue in with_jobs if not queue.is_full]
    if not not_full:
        return Blocked(Limit.MODEL_IN_FLIGHT)
    if not run.is_open(now):
        return Blocked(Limit.RATE, run.opens_at)
    for queue in not_full:
        if queue.is_open(now):
            return Chosen(queue.model)
    return Blocked(Limit.MODEL_RATE, min(queue.opens_at for queue in not_full if queue.opens_at is not None))


def _rotated(queues: Sequence[ModelQueue], after: str | None) -> list[ModelQueue]:
    models = [queue.model for queue in queues]
    first = models.index(after) + 1 if after in models else 0
    return [*queues[first:], *queues[:first]]
