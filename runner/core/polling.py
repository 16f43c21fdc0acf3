"""
Decide when to ask for a task again, and when to stop asking.

A query is free but seldom news: the gateway itself looks at its tasks every 15 s, about
one a second for each channel (fact F59). So the wait grows, stretches with the
tasks in flight, and aims at the time at which tasks of this model usually finish.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from runner.core.retry import backoff_s
from runner.core.settings import PollPolicy

_GROWTH = 1.25
_JITTER = 0.2
_GATEWAY_S_PER_TASK = 1.0
_LEAST_BACKOFF_S = 0.5

UNKNOWNS_UNTIL_LOST = 3
"""Unknown-task answers in a row, once a task is no longer young, after which it is lost (fact F65)."""


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
    Say how long to wait before the next query of a task.

    Load and learning stretch the wait up to ``max_interval_s`` and never past it; only
    the server's own wish goes further. The last query comes when our patience ends,
    so that no task is given up unseen. An interval of 0 stays 0: no pause at all.

    Args:
        polls: Queries of this task so far.
        age_s: Seconds since it was submitted.
        in_flight: Tasks that we have at the gateway.
        draw: A random draw from [0, 1), so that tasks submitted together part.
        typical_s: When tasks of this model have usually finished (`QuantileEstimator.typical_s`), or None.
        poll_after_s: The server's wish, or None.
        timeout_s: The job's own patience in place of the policy's.

    >>> next_poll_s(PollPolicy(), polls=0, age_s=0.0, in_flight=8, draw=0.0)
    10.0
    >>> next_poll_s(PollPolicy(), polls=3, age_s=60.0, in_flight=40, draw=0.0)
    40.0
    >>> next_poll_s(PollPolicy(), polls=1, age_s=20.0, in_flight=8, draw=0.0, typical_s=65.0)
    45.0
    """
    least_s = max(policy.first_s - age_s, 0.0) if polls == 0 else 0.0
    # Past some doublings the bound decides anyway, and a power overflows.
    wait_s = policy.first_s if polls == 0 else policy.interval_s * _GROWTH ** min(polls - 1, 64)
    if wait_s > 0:
        most_s = max(policy.max_interval_s, least_s) / (1 + _JITTER)
        until_typical_s = (typical_s or 0.0) - age_s
        wait_s = min(max(wait_s, in_flight * _GATEWAY_S_PER_TASK, until_typical_s), most_s)
        wait_s = max(wait_s * (1 + _JITTER * draw), least_s)
    wait_s = max(wait_s, poll_after_s or 0.0)
    limit_s = policy.timeout_s if timeout_s is None else timeout_s
    return min(wait_s, max(limit_s - age_s, 0.0))


def poll_backoff_s(
    policy: PollPolicy, *, in_row: int, draw: float, retry_after_s: float | None = None
) -> float:
    """
    Say how long to wait after a query that taught nothing (network trouble, 5xx, 429, 403).

    It doubles up to ``max_interval_s``, and never ends a job: only its patience does.

    Args:
        in_row: Such queries in a row, 1 for the first.

    >>> [poll_backoff_s(PollPolicy(), in_row=n, draw=0.0) for n in (1, 2, 3)]
    [15.0, 30.0, 50.0]
    """
    first_s = max(policy.interval_s, _LEAST_BACKOFF_S)
    most_s = max(policy.max_interval_s, first_s) / (1 + _JITTER)
    wait_s = backoff_s(first_s, most_s, in_row) * (1 + _JITTER * draw)
    return max(wait_s, retry_after_s or 0.0)


def is_overdue(age_s: float, timeout_s: float) -> bool:
    """
    Say whether our patience with a task has ended: it stays resumable, and has not failed.

    >>> is_overdue(3599.9, 3600.0), is_overdue(3600.0, 3600.0)
    (False, True)
    """
    return age_s >= timeout_s


def count_unknown(late_before: int, *, age_s: float, tolerance_s: float) -> int:
    """
    Count an answer that does not know the task; at `UNKNOWNS_UNTIL_LOST` the task is lost.

    The API answers a submission before it stores the task (fact F35), so the answers
    to a young task count for nothing.

    Args:
        late_before: What this function gave for the answer before; 0 after any other answer.

    >>> count_unknown(0, age_s=30.0, tolerance_s=120.0)
    0
    >>> count_unknown(2, age_s=150.0, tolerance_s=120.0) >= UNKNOWNS_UNTIL_LOST
    True
    """
    return 0 if age_s < tolerance_s else late_before + 1


class QuantileEstimator(Struct):
    """
    How long tasks of one model take, in constant memory.

    A running estimate of the time by which two thirds have finished: a first query then
    finds most of them, and waits for few. Seen durations are a little long, since they
    end with the query that found out.
    """

    count: int = 0
    estimate_s: float = 0.0

    _QUANTILE: ClassVar[float] = 2 / 3
    _ENOUGH: ClassVar[int] = 5

    def add(self, duration_s: float) -> None:
        """Note that a task finished after so many seconds."""
        self.count += 1
        if self.count == 1:
            self.estimate_s = duration_s
            return
        # Each duration beyond the estimate pushes it up by a step, each below pulls it down, in the
        # proportion that balances at the quantile. Steps shrink to a bound, so that it follows changes.
        step_s = self.estimate_s * max(1.0 / self.count, 0.05)
        self.estimate_s += step_s * (self._QUANTILE if duration_s > self.estimate_s else self._QUANTILE - 1)

    @property
    def typical_s(self) -> float | None:
        """The estimate, or None while too little was seen."""
        return self.estimate_s if self.count >= self._ENOUGH else None
