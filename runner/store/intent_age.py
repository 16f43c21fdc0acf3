"""How long ago a job's intent was saved, by a clock that continues while the machine sleeps."""

from __future__ import annotations

import time
from contextvars import ContextVar

_SAVED_AT: ContextVar[float | None] = ContextVar("_SAVED_AT", default=None)
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Return seconds since the machine was started, those in which it slept included."""
    return time.clock_gettime(_CLOCK)


def note_intent() -> None:
    """Note that the current task saves the intent to submit a job."""
    _SAVED_AT.set(boot_time())


def intent_age_s(now: float) -> float:
    """
    Return how long ago the current task saved an intent; 0 if it did not.

    Args:
        now: By `boot_time`.
    """
    saved_at = _SAVED_AT.get()
    return 0.0 if saved_at is None else now - saved_at
