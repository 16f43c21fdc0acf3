"""
Learn how long tasks take from looks at them, and when to look next.

A look shows only whether a task has ended. One that was running at 20 s and done at 50 s took something in between,
so an estimate from the time of the look alone would be too long, later looks would follow from it, and so on. Instead
each task spreads its weight over all durations that its looks allow, in the proportions known so far.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

_GROWTH = 1.05
_BINS = 220
"""Up to 12 hours."""
_UPPER_S = tuple(_GROWTH**index for index in range(_BINS))
"""The upper ends of the bins."""
_MIDDLE_S = tuple(upper_s / math.sqrt(_GROWTH) for upper_s in _UPPER_S)
_LEAST_SCALE = 1e-100
_MIN_COUNT = 5
_MIN_WEIGHT = 0.04
"""Of the newest task, so that the estimate follows changes."""
_UNIFORM = 0.02
"""The share of a task's weight that does not depend on what is known so far, so that this is never final."""
_NEGLIGIBLE = 0.02
"""If fewer tasks than this take longer, nothing is known about those that do."""
_FORGOTTEN = 1e-9
"""A weight below this is of tasks so long ago that nothing is known; one far below it has no inverse."""
_CANDIDATES = 24
_TOLERANCE = 0.02
"""Of a delay, in mean durations, that one look less is worth."""


class Durations:
    """
    The distribution of the durations of one model's tasks, in constant memory.

    >>> durations = Durations()
    >>> for _ in range(20):
    ...     durations.add(25.0, 40.0)
    >>> 25.0 < durations.mean_s < 40.0
    True

    Attributes:
        count: Tasks so far.
        mean_s: Their mean duration; 0 if nothing is known.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = 0.0
        self._weights = [0.0] * _BINS
        # What the weights must be multiplied by: so the older ones shrink without being touched.
        self._scale = 1.0

    def add(self, above_s: float, up_to_s: float) -> None:
        """
        Record a task that ended between two looks.

        Args:
            above_s: How old it was when it was last seen running; 0 if it never was.
            up_to_s: How old it was when it was seen to have ended.
        """
        self.count += 1
        last = _bin(up_to_s)
        first = min(_bin(above_s) + (above_s > 0), last)
        weights = self._weights
        share = max(1 / self.count, _MIN_WEIGHT)
        self._shrink(1 - share)
        known = sum(weights[first : last + 1]) * self._scale
        is_known = known > _FORGOTTEN
        uniform = share * (_UNIFORM if is_known else 1.0) / (last + 1 - first) / self._scale
        grown = 1 + share * (1 - _UNIFORM) / known if is_known else 1.0
        self.mean_s *= 1 - share
        for index in range(first, last + 1):
            before = weights[index]
            weights[index] = before * grown + uniform
            self.mean_s += (weights[index] - before) * self._scale * _MIDDLE_S[index]

    def _shrink(self, factor: float) -> None:
        """Multiply all weights."""
        self._scale *= factor
        if self._scale < _LEAST_SCALE:
            self._weights[:] = [weight * self._scale for weight in self._weights]
            self._scale = 1.0

    def best_wait_s(self, age_s: float, *, min_s: float, max_s: float, interval_s: float) -> float | None:
        """
        Return the wait before the next look with the least delay between a task's end and the look that shows it.

        Args:
            age_s: How old the task is, which is still running as far as known.
            interval_s: Between the looks after that one.

        Returns:
            A wait from ``min_s`` to ``max_s``; None if not enough is known about tasks that are so old.
        """
        if self.count < _MIN_COUNT or interval_s <= 0 or max_s <= min_s:
            return None
        first = bisect_right(_UPPER_S, age_s)
        # The sum of all weights is 1.
        if first and sum(self._weights[first:]) * self._scale < _NEGLIGIBLE:
            return None
        tolerance_s = _TOLERANCE * self.mean_s
        if max(max_s, interval_s) <= tolerance_s:
            # No wait is later than that.
            return max_s
        ends = [
            (upper_s - age_s, weight * self._scale)
            for upper_s, weight in zip(_UPPER_S[first:], self._weights[first:], strict=True)
            if weight * self._scale > 1e-4
        ]
        if sum(weight for _, weight in ends) < _NEGLIGIBLE:
            return None
        waits = {min_s + (max_s - min_s) * n / _CANDIDATES for n in range(_CANDIDATES + 1)}
        waits |= {left_s for left_s, _ in ends if min_s < left_s < max_s}
        delays = {wait_s: _delay_s(wait_s, ends, interval_s) for wait_s in waits}
        allowed_s = min(delays.values()) + tolerance_s
        return max(wait_s for wait_s, delay_s in delays.items() if delay_s <= allowed_s)


def _delay_s(wait_s: float, ends: list[tuple[float, float]], interval_s: float) -> float:
    """Return the mean time from a task's end until it is seen, if the first look is after a wait."""
    total_s = weights = 0.0
    for left_s, weight in ends:
        late_s = wait_s - left_s
        total_s += weight * (late_s if late_s >= 0 else late_s % interval_s)
        weights += weight
    return total_s / weights


def _bin(seconds: float) -> int:
    """Return the bin of a duration: the first whose upper end is not below it."""
    return min(bisect_left(_UPPER_S, seconds), _BINS - 1)
