"""
Say whether to try again, and when.

Only for what may be tried again: queries, downloads, and a POST that surely made no
task (not sent, throttled, refused for want of a channel).
"""

from __future__ import annotations

from runner.core.settings import RetryPolicy
from runner.core.value import frozen


@frozen
class Retry:
    """Try again after a wait of ``after_s`` seconds."""

    after_s: float


@frozen
class GiveUp:
    """The tries are used up."""


def decide(
    policy: RetryPolicy, *, attempt: int, draw: float, retry_after_s: float | None = None
) -> Retry | GiveUp:
    """
    Say whether a failed try earns another one, and how long to wait first.

    The wait is exponential with full jitter: a random share of ``base * 2**(attempt - 1)``,
    capped, so that jobs which failed together do not come back together. A server's
    Retry-After is a floor, not a suggestion: it is honoured even above the cap.

    Args:
        attempt: 1 for the first try.
        draw: A random draw from [0, 1), made by the caller.
        retry_after_s: The server's wish, already bounded, or None.

    >>> policy = RetryPolicy(attempts=4, base_s=2, cap_s=60)
    >>> decide(policy, attempt=3, draw=0.5)
    Retry(after_s=4.0)
    >>> decide(policy, attempt=1, draw=0.5, retry_after_s=90)
    Retry(after_s=90)
    >>> decide(policy, attempt=4, draw=0.5)
    GiveUp()
    """
    if attempt >= policy.attempts:
        return GiveUp()
    # Doubling past the cap is wasted work, and past 2**1023 it overflows.
    doublings = min(max(attempt - 1, 0), 32)
    wait_s = draw * min(policy.base_s * 2.0**doublings, policy.cap_s)
    return Retry(max(wait_s, retry_after_s or 0.0))
