"""Decide whose turn it is to submit: models in turn, so that a slow one starves none, within every limit."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from runner.core.value import frozen


class Bound(StrEnum):
    """Which limit keeps the next job from being submitted."""

    IN_FLIGHT = "in_flight"
    RATE = "rate"
    MODEL_IN_FLIGHT = "model_in_flight"
    MODEL_RATE = "model_rate"
    NO_JOBS = "no_jobs"


@frozen
class Lane:
    """
    One model, or the run as a whole, as it stands now.

    Attributes:
        in_flight: Remote tasks that exist, or may exist.
        most_in_flight: None where there is no bound.
        opens_at: When its pacer grants the next request; None where it has no pacer of its own.
    """

    in_flight: int
    most_in_flight: int | None = None
    opens_at: float | None = None

    @property
    def is_full(self) -> bool:
        """No further task may exist."""
        return self.most_in_flight is not None and self.in_flight >= self.most_in_flight

    def is_open(self, now: float) -> bool:
        """Say whether its pacer grants a request now."""
        return self.opens_at is None or self.opens_at <= now


@frozen
class ModelLane(Lane):
    """
    One model with its jobs.

    Attributes:
        has_jobs: Whether a job of it is ready to be submitted.
    """

    model: str = ""
    has_jobs: bool = True


@frozen
class Turn:
    """The model to submit a job of now."""

    model: str


@frozen
class Blocked:
    """
    Nothing can be submitted now.

    Attributes:
        until: When time alone opens the way; None where a job has to end or to arrive first.
    """

    by: Bound
    until: float | None = None


def choose(run: Lane, lanes: Sequence[ModelLane], *, after: str | None, now: float) -> Turn | Blocked:
    """
    Pick the next model in turn that has a job, a free slot and an open pacer.

    Args:
        lanes: Every model, always in the same order.
        after: The model that had its turn last.

    >>> lanes = [ModelLane(2, 2, model="slow"), ModelLane(0, model="quick")]
    >>> choose(Lane(2, 8), lanes, after="quick", now=0.0)
    Turn(model='quick')
    >>> choose(Lane(8, 8), lanes, after="quick", now=0.0)
    Blocked(by=<Bound.IN_FLIGHT: 'in_flight'>, until=None)
    """
    waiting = [lane for lane in _in_turn(lanes, after) if lane.has_jobs]
    if not waiting:
        return Blocked(Bound.NO_JOBS)
    if run.is_full:
        return Blocked(Bound.IN_FLIGHT)
    roomy = [lane for lane in waiting if not lane.is_full]
    if not roomy:
        return Blocked(Bound.MODEL_IN_FLIGHT)
    if not run.is_open(now):
        return Blocked(Bound.RATE, run.opens_at)
    for lane in roomy:
        if lane.is_open(now):
            return Turn(lane.model)
    return Blocked(Bound.MODEL_RATE, min(lane.opens_at for lane in roomy if lane.opens_at is not None))


def _in_turn(lanes: Sequence[ModelLane], after: str | None) -> list[ModelLane]:
    first = next((index + 1 for index, lane in enumerate(lanes) if lane.model == after), 0)
    return [*lanes[first:], *lanes[:first]]
