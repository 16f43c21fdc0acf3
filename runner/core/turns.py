"""
Whose turn it is: which model's job is submitted next, and with which API key.

Keys are known here by their fingerprints only. Tasks belong to the account and not to the key, so any of
the user's keys may poll any of the user's tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from runner.core.model import Failure, FailureClass


class UseKey(Struct, frozen=True):
    """Submit with this key."""

    fingerprint: str


class WaitForKey(Struct, frozen=True):
    """Every remaining key cools down; the first is ready at ``until`` (a reading of the caller's clock)."""

    until: float


class NoKeyLeft(Struct, frozen=True):
    """Every key was refused; nothing more can be submitted in this run."""


KeyChoice = UseKey | WaitForKey | NoKeyLeft


class KeyPool:
    """
    The state of each key, for one run.

    A refused key is retired until the run ends; a throttled one cools down for a while. All times are
    readings of one clock of the caller's choice.

    >>> pool = KeyPool(["a1", "b2"])
    >>> pool.pick(now=0.0), pool.pick(now=0.0), pool.pick(now=0.0)
    (UseKey(fingerprint='a1'), UseKey(fingerprint='b2'), UseKey(fingerprint='a1'))
    >>> pool.cool_down("b2", until=30.0)
    >>> pool.retire("a1", Failure(FailureClass.QUOTA, "insufficient user quota"))
    >>> pool.pick(now=10.0), pool.pick(now=30.0)
    (WaitForKey(until=30.0), UseKey(fingerprint='b2'))
    """

    def __init__(self, fingerprints: Iterable[str]) -> None:
        # In the order of use: the key used longest ago comes first.
        self._ready_at: dict[str, float] = dict.fromkeys(fingerprints, float("-inf"))
        self._fingerprints = tuple(self._ready_at)
        self._retired: dict[str, Failure] = {}

    def pick(self, now: float) -> KeyChoice:
        """Choose the ready key that was used longest ago, and mark it as used."""
        for fingerprint, ready_at in self._ready_at.items():
            if ready_at <= now:
                self._ready_at[fingerprint] = self._ready_at.pop(fingerprint)
                return UseKey(fingerprint)
        return WaitForKey(min(self._ready_at.values())) if self._ready_at else NoKeyLeft()

    def cool_down(self, fingerprint: str, until: float) -> None:
        """Do not pick a key before then; a longer cool-down that was set earlier remains."""
        if fingerprint in self._ready_at:
            self._ready_at[fingerprint] = max(self._ready_at[fingerprint], until)

    def retire(self, fingerprint: str, failure: Failure) -> None:
        """Do not pick a key for the rest of the run; the first failure counts."""
        if self._ready_at.pop(fingerprint, None) is not None:
            self._retired[fingerprint] = failure

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """
        Return the keys to poll a task with, in order: the one that submitted it, then the others.

        The next one is for when a key is refused with 401 or 403. A key without credit can still poll; one
        that the API does not know comes last.

        Args:
            fingerprint: Of the key that submitted the task, or None if that is unknown; the key may no longer
                be in the pool.

        >>> pool = KeyPool(["a1", "b2", "c3"])
        >>> pool.retire("b2", Failure(FailureClass.AUTH, "invalid token"))
        >>> pool.for_task("c3"), pool.for_task("b2")
        (('c3', 'a1', 'b2'), ('a1', 'c3', 'b2'))
        """
        if len(self._fingerprints) == 1:
            return self._fingerprints
        return tuple(
            sorted(self._fingerprints, key=lambda member: (self._is_unknown(member), member != fingerprint))
        )

    def _is_unknown(self, fingerprint: str) -> bool:
        failure = self._retired.get(fingerprint)
        return failure is not None and failure.cls is not FailureClass.QUOTA

    @property
    def is_pool(self) -> bool:
        """Whether more than one key is left to submit with."""
        return len(self._ready_at) > 1

    @property
    def is_exhausted(self) -> bool:
        """Whether no key is left to submit with."""
        return not self._ready_at


_NO_TIMES: Mapping[str, float] = {}


class Limit(StrEnum):
    """What prevents the next job from being submitted."""

    IN_FLIGHT = "in_flight"
    RATE = "rate"
    MODEL_IN_FLIGHT = "model_in_flight"
    MODEL_RATE = "model_rate"
    NO_JOBS = "no_jobs"


class Queue(Struct):
    """
    The current state of one model, or of the run as a whole.

    Attributes:
        in_flight: Remote tasks that exist, or may exist.
        max_in_flight: Its limit, or None.
    """

    in_flight: int
    max_in_flight: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further task may exist."""
        return self.max_in_flight is not None and self.in_flight >= self.max_in_flight


class ModelQueue(Queue):
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
    run: Queue,
    queues: Sequence[ModelQueue],
    *,
    after: str | None,
    now: float,
    opens_at: float,
    models_open_at: Mapping[str, float] = _NO_TIMES,
) -> Chosen | Blocked:
    """
    Return the next model that has a job, a free slot and an open pacer.

    Args:
        queues: Every model, always in the same order.
        after: The model that was chosen last, or None.
        opens_at: When the run's pacer allows the next request.
        models_open_at: The same for each model with a pacer of its own.

    >>> queues = [ModelQueue(2, 2, model="slow"), ModelQueue(0, model="fast")]
    >>> choose_model(Queue(2, 8), queues, after="fast", now=0.0, opens_at=0.0)
    Chosen(model='fast')
    >>> choose_model(Queue(8, 8), queues, after="fast", now=0.0, opens_at=0.0)
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
    if opens_at > now:
        return Blocked(Limit.RATE, opens_at)
    for queue in not_full:
        if models_open_at.get(queue.model, now) <= now:
            return Chosen(queue.model)
    return Blocked(Limit.MODEL_RATE, min(models_open_at[queue.model] for queue in not_full))


def _rotated(queues: Sequence[ModelQueue], after: str | None) -> Sequence[ModelQueue]:
    if len(queues) == 1:
        return queues
    models = [queue.model for queue in queues]
    first = models.index(after) + 1 if after in models else 0
    return [*queues[first:], *queues[:first]]
