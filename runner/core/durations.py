"""
How long things took, in constant memory.

Up to 4,096 values are kept and the quantiles are exact. Beyond that they are
counted in buckets whose bounds grow by 2 %, so that a quantile is within 1 % of
a value that occurred, however many there are. Count, mean and maximum stay exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from runner.core.value import frozen

EXACT_UP_TO = 4096
_GROWTH = 1.02
_LOG_GROWTH = math.log(_GROWTH)
_SMALLEST_S = 0.001


@frozen
class Durations:
    """What a set of durations comes to, in seconds; p50 and p90 by nearest rank."""

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    max_s: float


class DurationTally:
    """Takes durations in one by one, and says at any time what they come to."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_s = 0.0
        self._max_s = 0.0
        self._exact: list[float] | None = []
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Take in one duration; a negative one (a clock was set back) counts as 0."""
        seconds = max(0.0, seconds)
        self._count += 1
        self._sum_s += seconds
        self._max_s = max(self._max_s, seconds)
        self._buckets[bucket(seconds)] += 1
        if self._exact is not None:
            self._exact.append(seconds)
            if self._count > EXACT_UP_TO:
                self._exact = None

    def durations(self) -> Durations | None:
        """Say what was taken in comes to; None where it was nothing."""
        if not self._count:
            return None
        at = self._ranked() if self._exact is None else _rank_in(sorted(self._exact))
        p50_s, p90_s = (at(math.ceil(share * self._count)) for share in (0.5, 0.9))
        return Durations(
            count=self._count,
            mean_s=self._sum_s / self._count,
            p50_s=min(p50_s, self._max_s),
            p90_s=min(p90_s, self._max_s),
            max_s=self._max_s,
        )

    def counts(self) -> dict[int, int]:
        """Give the number of durations in each `bucket`, smallest first."""
        return dict(sorted(self._buckets.items()))

    def _ranked(self) -> Callable[[int], float]:
        def at(rank: int) -> float:
            seen = 0
            for index, count in sorted(self._buckets.items()):
                seen += count
                if seen >= rank:
                    return bucket_middle_s(index)
            return self._max_s

        return at


def _rank_in(ordered: list[float]) -> Callable[[int], float]:
    return lambda rank: ordered[rank - 1]


def bucket(seconds: float) -> int:
    """
    Number the bucket of a duration; 0 holds everything up to a millisecond.

    >>> bucket(0.0), bucket(0.001), bucket(10.0) < bucket(10.3)
    (0, 0, True)
    """
    if seconds <= _SMALLEST_S:
        return 0
    return math.ceil(math.log(seconds / _SMALLEST_S) / _LOG_GROWTH)


def bucket_middle_s(index: int) -> float:
    """
    Give the duration that stands for all of a bucket: at most 1 % from any of them.

    >>> abs(bucket_middle_s(bucket(93.1)) - 93.1) < 0.94
    True
    """
    return _SMALLEST_S * 2 * _GROWTH**index / (1 + _GROWTH)
