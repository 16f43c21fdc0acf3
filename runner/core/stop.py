"""
Why a run stops early, what it still finishes, and its exit code.

The exit code describes the state of the run, not only what one process did: the same command again on a
finished run with failures returns the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from runner.core.lifecycle import State
from runner.core.units import format_duration


class Drain(StrEnum):
    """What a run still finishes after it has stopped submitting."""

    ALL = "all"
    """Everything that was paid for is polled and downloaded."""
    IN_PROGRESS = "in_progress"
    """Only POSTs that were sent get their answers, and downloads that began have a while to finish."""


class StopReason(StrEnum):
    """Why no more jobs are submitted."""

    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    AUTH = "auth"
    QUOTA = "quota"
    FORBIDDEN = "forbidden"
    INPUTS = "inputs"
    BAD_BASE_URL = "bad_base_url"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILURES = "failures"
    DISK = "disk"
    STORE = "store"
    INTERNAL = "internal"
    BUDGET = "budget"
    CANARY = "canary"
    LEDGER = "ledger"
    LIMIT = "limit"
    DEADLINE = "deadline"
    DRAIN_ENDED = "drain_ended"


_WORK_LEFT_CODE = 6
_NOT_ENDED = frozenset(state for state in State if not state.has_ended)
_CODES: Mapping[StopReason, int] = {
    StopReason.INTERRUPTED: 130,
    StopReason.TERMINATED: 143,
    StopReason.LIMIT: _WORK_LEFT_CODE,
    StopReason.DEADLINE: _WORK_LEFT_CODE,
    StopReason.DRAIN_ENDED: _WORK_LEFT_CODE,
}
_STOPPED_EARLY_CODE = 3
_DRAIN_IN_PROGRESS = frozenset(
    {
        StopReason.INTERRUPTED,
        StopReason.TERMINATED,
        StopReason.DISK,
        StopReason.STORE,
        StopReason.INTERNAL,
        StopReason.DRAIN_ENDED,
        StopReason.UNREACHABLE,
    }
)


class Stop(Struct, frozen=True):
    """
    Why nothing more is submitted.

    Attributes:
        message: What happened, for a person.
        hint: What to do next, or None if the summary says it anyway.
    """

    reason: StopReason
    message: str
    hint: str | None = None

    @property
    def drain(self) -> Drain:
        """What is still finished."""
        return Drain.IN_PROGRESS if self.reason in _DRAIN_IN_PROGRESS else Drain.ALL

    @property
    def exit_code(self) -> int:
        """The exit code, unless another one takes precedence."""
        return _CODES.get(self.reason, _STOPPED_EARLY_CODE)


def stop_for_unreachable_gateway(why: str) -> Stop:
    """
    Return why a run stops that never reached the gateway.

    Args:
        why: What went wrong, as a clause.
    """
    return Stop(
        StopReason.UNREACHABLE, f"the gateway does not answer: {why}", "check the address and the network"
    )


def stop_for_stall(limit_s: float, message: str) -> Stop:
    """Return why a run stops of which the gateway has accepted nothing for so long."""
    return Stop(
        StopReason.UNAVAILABLE,
        f"the gateway has accepted nothing for {format_duration(limit_s)}; its last answer: {message}",
        "check it with runner doctor, then resume the run",
    )


def exit_code(stops: Iterable[Stop], counts: Mapping[State, int]) -> int:
    """
    Return the exit code of the process: 130 and 143 take precedence over 3, 4, 6, 1 and 0, in this order.

    Args:
        counts: Jobs of the run by state.

    >>> exit_code([], {State.SUCCEEDED: 2, State.FAILED: 1})
    1
    >>> exit_code([Stop(StopReason.DEADLINE, "time is up")], {State.UNCERTAIN: 1})
    4
    """
    codes = {stop.exit_code for stop in stops}
    if not any(counts.get(state, 0) for state in _NOT_ENDED):
        # The time was up, but everything was done by then or while draining.
        codes.discard(_WORK_LEFT_CODE)
    if counts.get(State.UNCERTAIN, 0):
        codes.add(4)
    if any(counts.get(state, 0) for state in (State.FAILED, State.TIMED_OUT, State.UNDELIVERED)):
        codes.add(1)
    return combined_exit_code(codes)


SIGNAL_EXIT_CODES = (130, 143)
_PRECEDENCE = (*SIGNAL_EXIT_CODES, 3, 2, 5, 4, 6, 1)


def combined_exit_code(codes: Iterable[int]) -> int:
    """
    Return the exit code that takes precedence over the others: a signal's, of early stops, of errors, of jobs.

    >>> combined_exit_code([1, 4, 6]), combined_exit_code([0, 0])
    (4, 0)
    """
    found = set(codes)
    return next((code for code in _PRECEDENCE if code in found), 0)
