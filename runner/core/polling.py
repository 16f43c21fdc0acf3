"""
Decide when to poll a task again, and when to stop.

A poll is free, but rarely shows a change: the gateway itself looks at its tasks every 15 s (fact F59). So the wait grows,
and aims at the time at which tasks of this model usually finish.
"""

from __future__ import annotations

from runner.core.durations import Durations
from runner.core.retry import backoff_s
from runner.core.settings import PollPolicy

_GROWTH = 1.25
_JITTER = 0.2
_EXPLORED = 0.05
"""The share of looks that are earlier than seems best, once much is known."""
_EXPLORED_AT_FIRST = 10
"""Divided by the tasks so far it is that share before, up to a half."""
_MIN_BACKOFF_S = 0.5

UNKNOWNS_UNTIL_LOST = 3
"""After so many polls in a row in which the API did not know a task, once it is no longer young, it is lost (fact F65)."""


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
        # Some tasks are looked at earlier, or it would never be noticed that they end earlier.
        explored = max(_EXPLORED, min(_EXPLORED_AT_FIRST / durations.count, 0.5))
        wait_s = min_s + min(draw / explored, 1.0) * (best_s - min_s)
    else:
        wait_s = _growing_wait_s(policy, polls, min_s, draw)
    wait_s = max(wait_s, poll_after_s or 0.0)
    limit_s = policy.timeout_s if timeout_s is None else timeout_s
    return min(wait_s, max(limit_s - age_s, 0.0))


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
