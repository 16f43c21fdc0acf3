"""
Decide whether to try again, and when.

Only for what may be tried again: polls, downloads, and a POST that certainly made no
task (not sent, throttled, refused because no channel was available). How all
submissions slow down after a 429 is in `core.pacing`.
"""

from __future__ import annotations

from msgspec import Struct

from runner.core.settings import RetryPolicy


def backoff_s(first_s: float, cap_s: float, failures: int) -> float:
    """
    Return the exponential backoff after some failures in a row (1 for the first): doubled each time, and capped.

    >>> [backoff_s(2.0, 10.0, failures) for failures in (1, 2, 3, 4)]
    [2.0, 4.0, 8.0, 10.0]
    """
    # Doubling past the cap is wasted work, and past 2**1023 it overflows.
    return min(first_s * 2.0 ** min(failures - 1, 64), cap_s)


def retry_wait_s(
    policy: RetryPolicy, *, attempt: int, draw: float, retry_after_s: float | None = None
) -> float | None:
    """
    Return how long to wait before the next try of what failed, in seconds; None if the tries are used up.

    The wait is exponential with full jitter: a random share of ``base_s * 2**(attempt - 1)``, capped, so that
    jobs which failed together do not come back together. A server's Retry-After is a minimum, even above the cap.

    Args:
        attempt: The number of the failed try, 1 for the first.
        draw: A random draw from [0, 1), made by the caller.
        retry_after_s: What the server asks for, already bounded, or None.

    >>> policy = RetryPolicy(attempts=4, base_s=2, cap_s=60)
    >>> retry_wait_s(policy, attempt=3, draw=0.5)
    4.0
    >>> retry_wait_s(policy, attempt=1, draw=0.5, retry_after_s=90)
    90
    >>> retry_wait_s(policy, attempt=4, draw=0.5) is None
    True
    """
    if attempt >= policy.attempts:
        return None
    return max(draw * backoff_s(policy.base_s, policy.cap_s, attempt), retry_after_s or 0.0)


MAX_DOWNLOAD_WAIT_S = 900.0
"""A download whose server asks for a longer wait is left to a later run."""
_PROGRESS_BYTES = 64 << 10


class DownloadTries(Struct, frozen=True):
    """
    The tries of one download since it last made progress.

    Attributes:
        failed: Failed tries in a row without progress.
        furthest_bytes: The most bytes it ever had; a restart that gets less far is no progress.
    """

    failed: int = 0
    furthest_bytes: int = 0

    def add_failure(self, size_bytes: int, *, is_too_slow: bool = False) -> DownloadTries:
        """
        Count a failed try; one that got at least 64 KiB further than any before counts as the first again.

        >>> DownloadTries(failed=3, furthest_bytes=0).add_failure(1_000_000)
        DownloadTries(failed=1, furthest_bytes=1000000)
        >>> DownloadTries(failed=3, furthest_bytes=1_000_000).add_failure(900_000)
        DownloadTries(failed=4, furthest_bytes=1000000)

        What came too slowly is no progress: a host that trickles would hold its download forever.

        >>> DownloadTries(failed=3, furthest_bytes=0).add_failure(1_000_000, is_too_slow=True)
        DownloadTries(failed=4, furthest_bytes=0)
        """
        if not is_too_slow and size_bytes - self.furthest_bytes >= _PROGRESS_BYTES:
            return DownloadTries(1, size_bytes)
        return DownloadTries(self.failed + 1, self.furthest_bytes)

    def wait_s(self, policy: RetryPolicy, *, draw: float, retry_after_s: float | None) -> float | None:
        """
        Return how long to wait before the next try, in seconds; None to leave the download to a later run.

        As `retry_wait_s`, except that no server may park a download for more than `MAX_DOWNLOAD_WAIT_S`.

        >>> DownloadTries(failed=1).wait_s(RetryPolicy(), draw=0.5, retry_after_s=901) is None
        True
        """
        if (retry_after_s or 0) > MAX_DOWNLOAD_WAIT_S:
            return None
        return retry_wait_s(policy, attempt=self.failed, draw=draw, retry_after_s=retry_after_s)
