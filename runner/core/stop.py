"""
Why a run stops early, what it still finishes, and what its exit code says.

The exit code tells the state of the run, not only what one process did: the same
command again on a finished run with failures gives the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from runner.core.lifecycle import State


class Drain(StrEnum):
    """What a run that submits no more still finishes."""

    ALL = "all"
    """Everything that was paid for is polled and fetched to its end."""
    IN_HAND = "in_hand"
    """Answers to POSTs on their way are awaited, and downloads under way finished."""


class StopReason(StrEnum):
    """Why no more jobs are submitted."""

    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    AUTH = "auth"
    QUOTA = "quota"
    FORBIDDEN = "forbidden"
    BAD_BASE_URL = "bad_base_url"
    UNAVAILABLE = "unavailable"
    FAILURES = "failures"
    DISK = "disk"
    STORE = "store"
    INTERNAL = "internal"
    DEADLINE = "deadline"
    DRAIN_ENDED = "drain_ended"


_TIME_UP = 6
_LEFT = frozenset(state for state in State if not state.is_resting)
_CODES: Mapping[StopReason, int] = {
    StopReason.INTERRUPTED: 130,
    StopReason.TERMINATED: 143,
    StopReason.DEADLINE: _TIME_UP,
    StopReason.DRAIN_ENDED: _TIME_UP,
}
_STOPPED_EARLY = 3
_IN_HAND = frozenset(
    {
        StopReason.INTERRUPTED,
        StopReason.TERMINATED,
        StopReason.DISK,
        StopReason.STORE,
        StopReason.INTERNAL,
        StopReason.DRAIN_ENDED,
    }
)


class Stop(Struct, frozen=True):
    """
    A reason to submit no more.

    Attributes:
        message: What happened, for a person.
        hint: What to do next, or None where the summary says it anyway.
    """

    reason: StopReason
    message: str
    hint: str | None = None

    @property
    def drain(self) -> Drain:
        """What is still finished."""
        return Drain.IN_HAND if self.reason in _IN_HAND else Drain.ALL

    @property
    def exit_code(self) -> int:
        """What the process exits with if nothing weighs more."""
        return _CODES.get(self.reason, _STOPPED_EARLY)


def exit_code(stops: Iterable[Stop], counts: Mapping[State, int]) -> int:
    """
    Say what the process exits with: 130 and 143 before 3, 4, 6, 1 and 0.

    Args:
        counts: Jobs of the run by state.

    >>> exit_code([], {State.SUCCEEDED: 2, State.FAILED: 1})
    1
    >>> exit_code([Stop(StopReason.DEADLINE, "time is up")], {State.UNCERTAIN: 1})
    4
    """
    codes = {stop.exit_code for stop in stops}
    if not any(counts.get(state, 0) for state in _LEFT):
        # The time was up, and everything had been done by then or while draining.
        codes.discard(_TIME_UP)
    if counts.get(State.UNCERTAIN, 0):
        codes.add(4)
    if any(counts.get(state, 0) for state in (State.FAILED, State.TIMED_OUT, State.UNDELIVERED)):
        codes.add(1)
    return next((code for code in (130, 143, 3, 4, 6, 1) if code in codes), 0)
