"""
Say whether to try again, and when.

Only for what may be tried again: queries, downloads, and a POST that surely made no
task (not sent, throttled, refused for want of a channel).
"""

from __future__ import annotations

from msgspec import Struct

from runner.core.settings import RetryPolicy


class Retry(Struct, frozen=True):
    """Try again after a wait of ``after_s`` seconds."""

    after_s: float


class GiveUp(Struct, frozen=True):
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


LONGEST_WAIT_S = 900.0
"""A server that wants to be left alone for longer has its way: the download is left to a later run."""
_HEADWAY_BYTES = 64 << 10


class RetryState(Struct, frozen=True):
    """
    The tries of one download since it last got on.

    Attributes:
        failed: RetryState in a row that brought it no further.
        furthest_bytes: How far it ever was; starting over and getting less far is no headway.
    """

    failed: int = 0
    furthest_bytes: int = 0


def retry_wait_s(tries: RetryState, reached_bytes: int) -> RetryState:
    """
    Count a try that failed; one that got at least 64 KiB further than any before counts as the first again.

    >>> retry_wait_s(RetryState(failed=3, furthest_bytes=0), reached_bytes=1_000_000)
    RetryState(failed=1, furthest_bytes=1000000)
    >>> retry_wait_s(RetryState(failed=3, furthest_bytes=1_000_000), reached_bytes=900_000)
    RetryState(failed=4, furthest_bytes=1000000)
    """
    if reached_bytes - tries.furthest_bytes >= _HEADWAY_BYTES:
        return RetryState(1, reached_bytes)
    return RetryState(tries.failed + 1, tries.furthest_bytes)


def wait_before_next(
    policy: RetryPolicy, tries: RetryState, *, retry_after_s: float | None, draw: float
) -> float | None:
    """
    Say how long to wait before the next try; None to give up.

    The wait is a random share of ``base_s * 2**(failed - 1)``, capped. A server's
    Retry-After is a floor and honoured above the cap, up to 15 minutes. `draw` is a
    random draw from [0, 1).

    >>> policy = RetryPolicy(attempts=4, base_s=2, cap_s=60)
    >>> wait_before_next(policy, RetryState(failed=3), retry_after_s=None, draw=0.5)
    4.0
    >>> wait_before_next(policy, RetryState(failed=1), retry_after_s=90, draw=0.5)
    90
    >>> wait_before_next(policy, RetryState(failed=4), retry_after_s=None, draw=0.5) is None
    True
    """
    if tries.failed >= policy.attempts or (retry_after_s or 0) > LONGEST_WAIT_S:
        return None
    # Doubling past the cap is wasted work, and past 2**1023 it overflows.
    bound = min(policy.cap_s, policy.base_s * 2.0 ** min(tries.failed - 1, 32))
    return max(draw * bound, retry_after_s or 0)
