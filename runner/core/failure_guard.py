"""
Stop paying when jobs keep ending without a video.

Each job is paid for before it is known whether it works out, so a wrong prompt, a host that can't be
reached or a model that is down would otherwise cost a whole batch.
"""

from __future__ import annotations

from typing import Literal

from runner.core.lifecycle import State
from runner.core.stop import Stop, StopReason
from runner.core.units import format_count

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
        raise ValueError(f"{text!r} is no number and no percentage; write {SHARE_FORMS}")
    return value


class FailureGuard:
    """
    Counts the jobs that ended in this process, and decides when there are too many without a video.

    A job whose failed task is followed by another take has not ended.

    >>> guard = FailureGuard(1)
    >>> [guard.record_end(State.FAILED, pending=5) is not None for _ in range(3)]
    [False, True, True]
    """

    def __init__(self, max_failures: MaxFailures) -> None:
        self._max_failures = max_failures
        self._ended = 0
        self._unsuccessful = 0
        self._in_row = 0

    def record_end(self, state: State, *, pending: int) -> Stop | None:
        """
        Count a job that ended; return why the run must stop submitting, or None.

        An uncertain job is no failure, and no success either.

        Args:
            pending: Jobs that are still to be submitted.
        """
        self._ended += 1
        self._in_row += state in _UNSUCCESSFUL
        self._unsuccessful += state in _UNSUCCESSFUL
        if state is State.SUCCEEDED:
            self._in_row = 0
        most = self._max_failures
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
