"""
Bound how long a run waits for a gateway that takes nothing.

Being throttled or out of order is no fault of a job's, so no job ever fails for it,
and each is tried again: without a bound, a run that nobody watches would wait for ever.
"""

from __future__ import annotations

LEAST_REFUSALS = 3
"""Answers in a row that say anything about the gateway: at a job an hour, one says little."""


class Standstill:
    """
    Tell when nothing has moved for too long. Every method takes ``now``, a reading of the monotonic clock.

    Only answers count: a run that asks for nothing, because its own limits hold it
    back, does not stand still.

    >>> standstill = Standstill(patience_s=3600.0)
    >>> for now in (0.0, 10.0, 20.0):
    ...     standstill.refused("429", now)
    >>> standstill.has_lasted(3599.0), standstill.has_lasted(3600.0)
    (False, True)
    >>> standstill.moved()
    >>> standstill.has_lasted(3600.0)
    False
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.last_words = ""
        self._since: float | None = None
        self._refusals = 0

    def moved(self) -> None:
        """Note that the gateway did something for the run: it took or rejected a job, or showed a task."""
        self._since = None
        self._refusals = 0

    def refused(self, message: str, now: float) -> None:
        """Note that a submission came to nothing for now, and what was said."""
        self.last_words = message
        self._refusals += 1
        if self._since is None:
            self._since = now

    def has_lasted(self, now: float) -> bool:
        """Say whether it is time to stop."""
        if self._since is None or self._refusals < LEAST_REFUSALS:
            return False
        return now - self._since >= self.patience_s
