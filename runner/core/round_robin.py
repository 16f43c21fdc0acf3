"""Decide whose turn it is to submit: models in turn, so that a slow one starves none, within every limit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class Limit(StrEnum):
    """Which limit keeps the next job from being submitted."""

    IN_FLIGHT = "in_flight"
    RATE = "rate"
    MODEL_IN_FLIGHT = "model_in_flight"
    MODEL_RATE = "model_rate"
    NO_JOBS = "no_jobs"


class Queue(Struct, frozen=True):
    """
    One model, or the run as a whole, as it stands now.

    Attributes:
        in_flight: Remote tasks that exist, or may exist.
        max_in_flight: None where there is no bound.
        opens_at: When its pacer grants the next request; None where it has no pacer of its own.
    """

    in_flight: int
    max_in_flight: int | None = None
    opens_at: float | None = None

    @property
    def is_full(self) -> bool:
        """No further task may exist."""
        return self.max_in_flight is not None and self.in_flight >= self.max_in_flight

    def is_open(self, now: float) -> bool:
        """Say whether its pacer grants a request now."""
        return self.opens_at is None or self.opens_at <= now


class ModelQueue(Queue, frozen=True):
    """
    One model with its jobs.

    Attributes:
        has_jobs: Whether a job of it is ready to be submitted.
    """

    model: str = ""
    has_jobs: bool = True


class Chosen(Struct, frozen=True):
    """The model to submit a job of now."""

    model: str


class Blocked(Struct, frozen=True):
    """
    Nothing can be submitted now.

    Attributes:
        until: When time alone opens the way; None where a job has to end or to arrive first.
    """

    by: Limit
    until: float | None = None


def choose_model(
    run: Queue, queues: Sequence[ModelQueue], *, after: str | None, now: float
) -> Chosen | Blocked:
    """
    Pick the next model in turn that has a job, a free slot and an open pacer.

    Args:
        queues: Every model, always in the same order.
        after: The model that had its turn last.

    >>> queues = [ModelQueue(2, 2, model="slow"), ModelQueue(0, model="quick")]
    >>> choose_model(Queue(2, 8), queues, after="quick", now=0.0)
    Chosen(model='quick')
    >>> choose_model(Queue(8, 8), queues, after="quick", now=0.0)
    Blocked(by=<Limit.IN_FLIGHT: 'in_flight'>, until=None)
    """
    waiting = [queue for queue in _in_turn(queues, after) if queue.has_jobs]
    if not waiting:
        return Blocked(Limit.NO_JOBS)
    if run.is_full:
        return Blocked(Limit.IN_FLIGHT)
    roomy = [queue for queue in waiting if not queue.is_full]
    if not roomy:
        return Blocked(Limit.MODEL_IN_FLIGHT)
    if not run.is_open(now):
        return Blocked(Limit.RATE, run.opens_at)
    for queue in roomy:
        if queue.is_open(now):
            return Chosen(queue.model)
    return Blocked(Limit.MODEL_RATE, min(queue.opens_at for queue in roomy if queue.opens_at is not None))


def _in_turn(queues: Sequence[ModelQueue], after: str | None) -> list[ModelQueue]:
    first = next((index + 1 for index, queue in enumerate(queues) if queue.model == after), 0)
    return [*queues[first:], *queues[:first]]
