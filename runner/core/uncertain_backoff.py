"""
Slow down after answers that leave jobs uncertain.

A limiter in front of the gateway may answer 503 to whatever is too fast (fact F89). Nobody can know whether
such a job was accepted, so each costs a person's time, and a rate that is too high must not be tried often. So the rate is
halved, approaches the rate that failed only slowly, and is low after an outage.
"""

from __future__ import annotations

_CUT = 0.5
_NEAR = 0.7
"""From this share of the rate that failed on, growth is slow."""
_FAST_GROWTH = 1.05
"""For each accepted answer: tenfold in 48 answers."""
_SLOW_GROWTH = 1.005
"""For each accepted answer: 72 answers from `_NEAR` to the rate that failed, and twice as many each time it fails again."""
_SAME = (0.9, 1.3)
"""A rate failed again if the new one is so many times the old one."""
_MAX_REPEATS = 10
_RESTART_SHARE = 0.05
_RESTART_PER_S = 0.1
_MIN_PER_S = 1 / 120


class UncertainBackoff:
    """
    The highest rate after uncertain answers. Every method takes ``now``, a reading of the monotonic clock.

    >>> backoff = UncertainBackoff(1.0)
    >>> backoff.record_uncertain(5.0, sent_at=4.0, per_s=1.0)
    >>> backoff.per_s
    0.5

    Args:
        configured_per_s: The rate without uncertain answers.

    Attributes:
        per_s: The rate that is allowed now.
    """

    def __init__(self, configured_per_s: float) -> None:
        self.per_s = configured_per_s
        self._configured_per_s = configured_per_s
        self._failed_per_s = configured_per_s
        self._repeats = 0
        self._reacted_at = float("-inf")

    @property
    def learned_per_s(self) -> float:
        """
        The rate for the next run: the configured one, unless one rate failed again and again.

        A single uncertain answer says nothing about the rate, and neither does an outage.
        """
        return self._failed_per_s * _NEAR if self._repeats else self._configured_per_s

    def record_uncertain(self, now: float, *, sent_at: float, per_s: float) -> None:
        """
        Record an answer that left a job uncertain: halve the rate, once for each burst.

        Args:
            sent_at: When the job was sent. If that was before the last cut, the rate then says nothing about the rate now.
            per_s: The rate at which it was sent.
        """
        if sent_at <= self._reacted_at:
            return
        self._reacted_at = now
        has_failed_before = _SAME[0] <= per_s / self._failed_per_s <= _SAME[1]
        self._repeats = min(self._repeats + 1, _MAX_REPEATS) if has_failed_before else 0
        self._failed_per_s = per_s
        self._set(per_s * _CUT)

    def record_outage(self) -> None:
        """Record that no job is submitted until the gateway answers again: the rate starts low after that."""
        low_per_s = max(self._configured_per_s * _RESTART_SHARE, _RESTART_PER_S)
        self._set(min(self.per_s, low_per_s))

    def record_accepted(self) -> None:
        """Record an accepted job: the rate grows."""
        if self.per_s >= self._configured_per_s:
            return
        is_near = _NEAR * self._failed_per_s <= self.per_s < self._failed_per_s
        self._set(self.per_s * (_SLOW_GROWTH**2.0**-self._repeats if is_near else _FAST_GROWTH))

    def _set(self, per_s: float) -> None:
        least_per_s = min(_MIN_PER_S, self._configured_per_s)
        self.per_s = min(max(per_s, least_per_s), self._configured_per_s)
