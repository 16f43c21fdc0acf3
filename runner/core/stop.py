"""
Why a run stops early, what it still finishes, and its exit code.

The exit code describes the state of the run, not only what one process did: the same command again on a
finished run with failures returns the same code.

A run stops when jobs keep ending without a video. Each job is paid for before it is known whether it works out, so a
wrong prompt, a host that can't be reached or a model that is down would otherwise cost a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from runner.core.lifecycle import ENDED, State
from runner.core.settings import CanaryPolicy
from runner.core.units import format_count, format_duration


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
_NOT_ENDED = frozenset(State) - ENDED
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
    Return the stop of a run that never reached the gateway.

    Args:
        why: What went wrong, as a clause.
    """
    return Stop(
        StopReason.UNREACHABLE, f"the gateway does not answer: {why}", "check the address and the network"
    )


def stop_for_stall(limit_s: float, message: str) -> Stop:
    """Return the stop of a run that made no progress for that long."""
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


MaxFailures = int | float | Literal["off"] | None
"""A number of jobs; a share of those that ended, such as 0.1; "off" for no limit; None for the default limit."""

MIN_ENDS = 20
"""Ended jobs from which a share means something."""
DEFAULT_IN_ROW = 20
"""Jobs in a row that end without a video before the run stops, if no other limit is set."""

SHARE_FORMS = "a number of jobs such as 20, a percentage such as 5%, or off"

_UNSUCCESSFUL = frozenset({State.FAILED, State.UNDELIVERED, State.TIMED_OUT})


def parse_max_failures(text: str) -> MaxFailures:
    """
    Parse a number of jobs, a percentage of them, which is returned as a float from 0 to 1, or "off".

    >>> parse_max_failures("20"), parse_max_failures("5%"), parse_max_failures("off")
    (20, 0.05, 'off')

    Raises:
        ValueError: The text is none of them.
    """
    if text == "off":
        return "off"
    number, is_share = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) / 100 if is_share else int(number)
    except ValueError:
        value = -1
    if not 0 <= value or (is_share and not value <= 1):
        raise ValueError(f"{text!r} is neither a number nor a percentage; write {SHARE_FORMS}")
    return value


class FailureGuard(Struct):
    """
    Counts the jobs that ended in this process, and decides when there are too many without a video.

    A job whose failed task is followed by another take has not ended.

    >>> guard = FailureGuard(1)
    >>> [guard.record_end(State.FAILED, pending=5) is not None for _ in range(3)]
    [False, True, True]
    """

    max_failures: MaxFailures
    _ended: int = 0
    _unsuccessful: int = 0
    _in_row: int = 0

    def record_end(self, state: State, *, pending: int) -> Stop | None:
        """
        Count a job that ended; return why the run must stop submitting, or None.

        An uncertain job is neither a failure nor a success.

        Args:
            pending: Jobs that are still to be submitted.
        """
        self._ended += 1
        self._in_row += state in _UNSUCCESSFUL
        self._unsuccessful += state in _UNSUCCESSFUL
        if state is State.SUCCEEDED:
            self._in_row = 0
        most = self.max_failures
        if most == "off":
            return None
        if most is None:
            # Without jobs to submit there is nothing to save, and the run has simply ended.
            return _stop_by_default(self._in_row) if self._in_row >= DEFAULT_IN_ROW and pending else None
        if isinstance(most, float):
            if self._ended < MIN_ENDS or self._unsuccessful <= most * self._ended:
                return None
            count = f"{self._unsuccessful:,} of {format_count(self._ended, 'job')}"
            return _stop(f"{count} ended without a video, more than --max-failures {100 * most:g}%")
        if self._unsuccessful <= most:
            return None
        count = format_count(self._unsuccessful, "job")
        return _stop(f"{count} ended without a video, more than --max-failures {most}")


def _stop_by_default(in_row: int) -> Stop:
    return Stop(
        StopReason.FAILURES,
        f"{format_count(in_row, 'job')} in a row ended without a video",
        "find out why with runner status, then resume the run; --max-failures off resumes without this limit",
    )


def _stop(message: str) -> Stop:
    return Stop(StopReason.FAILURES, message)


class CanaryGate:
    """
    Holds jobs back until enough of the first ones have a video.

    Args:
        succeeded: Jobs of the run that have a video already; if they are enough, all jobs go through.
        in_flight: Jobs of earlier processes that have not ended; they count as first ones.

    >>> gate = CanaryGate(CanaryPolicy(jobs=2, succeed=1), succeeded=0, in_flight=0)
    >>> gate.record_submitted(), gate.is_closed, gate.record_submitted(), gate.is_closed
    (None, False, None, True)
    >>> gate.record_end(State.SUCCEEDED, pending=5), gate.is_closed
    (None, False)
    """

    def __init__(self, policy: CanaryPolicy, *, succeeded: int, in_flight: int) -> None:
        self._policy = policy if succeeded < policy.succeed else None
        self._submitted = in_flight
        self._ended = 0
        self._succeeded = succeeded

    @property
    def is_closed(self) -> bool:
        """Whether no job may be submitted until others have ended."""
        return self._policy is not None and self._submitted >= self._policy.jobs

    @property
    def why(self) -> str:
        """What holds the next job back, in words."""
        assert self._policy is not None
        return f"canary: {self._succeeded} of the first {self._policy.jobs} have a video, {self._policy.succeed} needed"

    def record_earlier(self, *, succeeded: int, in_flight: int) -> None:
        """Count more jobs of earlier processes."""
        self._submitted += in_flight
        self._succeeded += succeeded
        if self._policy is not None and self._succeeded >= self._policy.succeed:
            self._policy = None

    def count_again(self, *, succeeded: int, in_flight: int) -> None:
        """Forget the jobs that ended without a video, because a process died that may not have reported all."""
        self._submitted = self._ended = self._succeeded = 0
        self.record_earlier(succeeded=succeeded, in_flight=in_flight)

    def record_submitted(self) -> None:
        """Count a job that is submitted."""
        self._submitted += 1

    def record_not_submitted(self) -> None:
        """Take back a job that is submitted again: its submission made no task, or its task failed."""
        self._submitted -= 1

    def record_end(self, state: State, *, pending: int) -> Stop | None:
        """
        Count a job that ended; return why the run must stop, or None.

        Args:
            pending: Jobs that are still to be submitted.
        """
        policy = self._policy
        if policy is None:
            return None
        self._ended += 1
        self._succeeded += state is State.SUCCEEDED
        if self._succeeded >= policy.succeed:
            self._policy = None
            return None
        left = max(0, self._submitted - self._ended) + max(0, policy.jobs - self._submitted)
        if self._succeeded + left >= policy.succeed or not pending:
            return None
        videos = f"{self._succeeded:,} of the first {format_count(policy.jobs, 'job')} have a video"
        return Stop(
            StopReason.CANARY,
            f"{videos}, fewer than canary.succeed {policy.succeed}; the others were not submitted",
            "find out why with runner status, then run the same command again",
        )
