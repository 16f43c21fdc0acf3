"""
Learn how long tasks take, and decide when to poll one again, and when to stop.

A poll is free, but rarely shows a change: the gateway itself checks its tasks every 15 s (fact F59). So the wait grows,
and aims at the time at which tasks of this model usually finish.

A poll shows only whether a task has ended. One that was running at 20 s and done at 50 s took something in between,
so an estimate from the time of the poll alone would be too long, later polls would follow from it, and so on. Instead
each task spreads its weight over all durations that its polls allow, in the proportions known so far.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

from runner.core.retry import backoff_s
from runner.core.settings import PollPolicy

_BIN_GROWTH = 1.05
_BINS = 220
"""Up to 12 hours."""
_UPPER_S = tuple(_BIN_GROWTH**index for index in range(_BINS))
"""The upper ends of the bins."""
_MIDDLE_S = tuple(upper_s / math.sqrt(_BIN_GROWTH) for upper_s in _UPPER_S)
_MIN_SCALE = 1e-100
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
"""The delay that one poll less is worth, in mean durations."""


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
        Record a task that ended between two polls.

        Args:
            above_s: How old it was when it was last seen running; 0 if it never was.
            up_to_s: How old it was when it was seen to have ended.
        """
        self.count += 1
        last = _bin(up_to_s)
        first = min(_bin(above_s) + (above_s > 0), last)
        weights = self._weights
        share = max(1 / self.count, _MIN_WEIGHT)
        self._scale *= 1 - share
        if self._scale < _MIN_SCALE:
            weights[:] = [weight * self._scale for weight in weights]
            self._scale = 1.0
        known = sum(weights[first : last + 1]) * self._scale
        is_known = known > _FORGOTTEN
        uniform = share * (_UNIFORM if is_known else 1.0) / (last + 1 - first) / self._scale
        grown = 1 + share * (1 - _UNIFORM) / known if is_known else 1.0
        self.mean_s *= 1 - share
        for index in range(first, last + 1):
            before = weights[index]
            weights[index] = before * grown + uniform
            self.mean_s += (weights[index] - before) * self._scale * _MIDDLE_S[index]

    def best_wait_s(self, age_s: float, *, min_s: float, max_s: float, interval_s: float) -> float | None:
        """
        Return the wait before the next poll with the least delay between a task's end and the poll that shows it.

        Args:
            age_s: How old the task is, which is still running as far as known.
            interval_s: Between the polls after that one.

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
    """Return the mean time from a task's end until it is seen, if the first poll is after a wait."""
    total_s = weights = 0.0
    for left_s, weight in ends:
        late_s = wait_s - left_s
        total_s += weight * (late_s if late_s >= 0 else late_s % interval_s)
        weights += weight
    return total_s / weights


def _bin(seconds: float) -> int:
    """Return the bin of a duration: the first whose upper end is not below it."""
    return bisect_left(_UPPER_S, seconds, hi=_BINS - 1)


_GROWTH = 1.25
_JITTER = 0.2
_EXPLORED = 0.05
"""The share of polls that are earlier than seems best, once much is known."""
_EXPLORED_AT_FIRST = 10
"""Divided by the tasks so far it is that share before, up to a half."""
_MIN_BACKOFF_S = 0.5

UNKNOWNS_UNTIL_LOST = 3
"""After this many polls in a row in which the API did not know a task, once it is no longer young, it is lost (fact F65)."""


def next_poll_s(
    policy: PollPolicy,
    *,
    polls: int,
    age_s: float,
    draw: float,
    durations: Durations | None = None,
    poll_after_s: float | None = None,
    timeout_s: float | None = None,
) -> float:
    """
    Return how long to wait before the next poll of a task.

    What is known of durations stretches the wait up to ``max_interval_s``; only the server may ask for more. The last poll
    is when the timeout expires, so that no task is given up without a last look. An interval of 0 remains 0: no pause
    at all.

    Args:
        polls: Polls of this task so far.
        age_s: Seconds since it was submitted.
        draw: A random number from [0, 1), so that tasks submitted together are not polled together.
        durations: How long tasks of this model take, or None.
        poll_after_s: The wait that the server asks for, or None.
        timeout_s: The job's own timeout instead of the policy's.

    >>> next_poll_s(PollPolicy(), polls=0, age_s=0.0, draw=0.0)
    10.0
    >>> next_poll_s(PollPolicy(), polls=3, age_s=60.0, draw=0.0)
    23.4375
    """
    min_s = max(policy.first_s - age_s, 0.0) if polls == 0 else policy.interval_s
    best_s = None
    if durations is not None:
        max_s = max(policy.max_interval_s, min_s)
        best_s = durations.best_wait_s(age_s, min_s=min_s, max_s=max_s, interval_s=policy.interval_s)
    if best_s is not None and durations is not None:
        # Some tasks are polled earlier, or nothing would ever show that they end earlier.
        explored = max(_EXPLORED, min(_EXPLORED_AT_FIRST / durations.count, 0.5))
        wait_s = min_s + min(draw / explored, 1.0) * (best_s - min_s)
    else:
        wait_s = _growing_wait_s(policy, polls, min_s, draw)
    if poll_after_s is not None:
        wait_s = max(wait_s, poll_after_s)
    left_s = (policy.timeout_s if timeout_s is None else timeout_s) - age_s
    return wait_s if wait_s < left_s else max(left_s, 0.0)


def _growing_wait_s(policy: PollPolicy, polls: int, min_s: float, draw: float) -> float:
    """Return the wait if nothing is known about durations."""
    if polls == 0:
        return min_s
    # After that many polls the maximum decides anyway, and the power would overflow.
    wait_s = policy.interval_s * _GROWTH ** min(polls - 1, 64)
    return min(wait_s, max(policy.max_interval_s, min_s) / (1 + _JITTER)) * (1 + _JITTER * draw)


def poll_backoff_s(
    policy: PollPolicy, *, failures: int, draw: float, retry_after_s: float | None = None
) -> float:
    """
    Return how long to wait after a failed poll (network errors, 5xx, 429, 403).

    The wait doubles up to ``max_interval_s``. Failed polls never end a job; only the poll timeout does.

    Args:
        failures: Failed polls in a row, 1 for the first.

    >>> [poll_backoff_s(PollPolicy(), failures=n, draw=0.0) for n in (1, 2, 3)]
    [15.0, 30.0, 50.0]
    """
    first_s = max(policy.interval_s, _MIN_BACKOFF_S)
    max_s = max(policy.max_interval_s, first_s) / (1 + _JITTER)
    return max(backoff_s(first_s, max_s, failures) * (1 + _JITTER * draw), retry_after_s or 0.0)


def is_overdue(age_s: float, timeout_s: float) -> bool:
    """
    Return whether the poll timeout of a task has expired. The task has not failed, and can be resumed.

    >>> is_overdue(3599.9, 3600.0), is_overdue(3600.0, 3600.0)
    (False, True)
    """
    return age_s >= timeout_s


def count_unknown(counted: int, *, age_s: float, tolerance_s: float) -> int:
    """
    Count a poll in which the API did not know the task; at `UNKNOWNS_UNTIL_LOST` the task is lost.

    The API answers a submission before it stores the task (fact F35), so such polls of a young task do not
    count.

    Args:
        counted: The result of this function for the poll before; 0 after any other answer.

    >>> count_unknown(0, age_s=30.0, tolerance_s=120.0)
    0
    >>> count_unknown(2, age_s=150.0, tolerance_s=120.0) >= UNKNOWNS_UNTIL_LOST
    True
    """
    return 0 if age_s < tolerance_s else counted + 1
