"""
Decide when to poll a task again, and when to stop.

A poll is free, but rarely shows a change: the gateway itself looks at its tasks every 15 s, about one a
second for each channel (fact F59). So the wait grows, also with the number of tasks in flight, and aims at
the time at which tasks of this model usually finish.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from runner.core.retry import backoff_s
from runner.core.settings import PollPolicy

_GROWTH = 1.25
_JITTER = 0.2
_GATEWAY_S_PER_TASK = 1.0
_MIN_BACKOFF_S = 0.5

UNKNOWNS_UNTIL_LOST = 3
"""After so many polls in a row in which the API did not know a task, once it is no longer young, it is lost (fact F65)."""


def next_poll_s(
    policy: PollPolicy,
    *,
    polls: int,
    age_s: float,
    in_flight: int,
    draw: float,
    typical_s: float | None = None,
    poll_after_s: float | None = None,
    timeout_s: float | None = None,
) -> float:
    """
    Return how long to wait before the next poll of a task.

    The tasks in flight and the typical duration stretch the wait up to ``max_interval_s``; only the server
    may ask for more. The last poll is when the timeout expires, so that no task is given up without a last
    look. An interval of 0 remains 0: no pause at all.

    Args:
        polls: Polls of this task so far.
        age_s: Seconds since it was submitted.
        in_flight: Number of our tasks at the gateway.
        draw: A random number from [0, 1), so that tasks submitted together are not polled together.
        typical_s: When tasks of this model have usually finished (`QuantileEstimator.typical_s`), or None.
        poll_after_s: The wait that the server asks for, or None.
        timeout_s: The job's own timeout instead of the policy's.

    >>> next_poll_s(PollPolicy(), polls=0, age_s=0.0, in_flight=8, draw=0.0)
    10.0
    >>> next_poll_s(PollPolicy(), polls=3, age_s=60.0, in_flight=40, draw=0.0)
    40.0
    >>> next_poll_s(PollPolicy(), polls=1, age_s=20.0, in_flight=8, draw=0.0, typical_s=65.0)
    45.0
    """
    min_s = max(policy.first_s - age_s, 0.0) if polls == 0 else 0.0
    # After that many polls the maximum decides anyway, and the power would overflow.
    wait_s = policy.first_s if polls == 0 else policy.interval_s * _GROWTH ** min(polls - 1, 64)
    if wait_s > 0:
        max_s = max(policy.max_interval_s, min_s) / (1 + _JITTER)
        until_typical_s = (typical_s or 0.0) - age_s
        wait_s = min(max(wait_s, in_flight * _GATEWAY_S_PER_TASK, until_typical_s), max_s)
        wait_s = max(wait_s * (1 + _JITTER * draw), min_s)
    wait_s = max(wait_s, poll_after_s or 0.0)
    limit_s = policy.timeout_s if timeout_s is None else timeout_s
    return min(wait_s, max(limit_s - age_s, 0.0))


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


class QuantileEstimator(Struct):
    """
    Estimates how long tasks of one model take, in constant memory.

    The estimate is the time by which two thirds have finished: a first poll then finds most of them
    finished, and comes late for few. Durations are a little too long, because they end with the poll that
    showed success.
    """

    count: int = 0
    estimate_s: float = 0.0

    _QUANTILE: ClassVar[float] = 2 / 3
    _MIN_COUNT: ClassVar[int] = 5

    def add(self, duration_s: float) -> None:
        """Record that a task finished after so many seconds."""
        self.count += 1
        if self.count == 1:
            self.estimate_s = duration_s
            return
        # Each longer duration moves the estimate up by a step, each shorter one moves it down, in the
        # proportion that balances at the quantile. Steps shrink to a minimum, so that it follows changes.
        step_s = self.estimate_s * max(1.0 / self.count, 0.05)
        self.estimate_s += step_s * (self._QUANTILE if duration_s > self.estimate_s else self._QUANTILE - 1)

    @property
    def typical_s(self) -> float | None:
        """The estimate, or None until there are enough durations."""
        return self.estimate_s if self.count >= self._MIN_COUNT else None
