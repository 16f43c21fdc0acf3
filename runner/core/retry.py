"""
Decide whether to try again, and when; and read the HTTP headers that say how long to wait.

Only for what may be tried again: polls, downloads, and a POST that certainly made no task (not sent, throttled, refused
because no channel was available). How all submissions slow down after a 429 is in `core.pacing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

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


MAX_RETRY_AFTER_S = 3600.0
"""No longer wait is honored: a server with a wrong clock must not put a run to sleep for a year."""

_IN_MS = frozenset({"retry-after-ms", "openai-poll-after-ms"})
_WAITS = _IN_MS | {"retry-after"}


def parse_http_date(text: str) -> float | None:
    """
    Return an HTTP date as seconds since 1970, or None if the text is not one.

    HTTP dates are GMT by definition (RFC 9110 5.6.7), so one without a zone is GMT too, never local time.

    >>> parse_http_date("Thu, 01 Jan 1970 00:01:30 GMT"), parse_http_date("Thu, 01 Jan 1970 00:01:30")
    (90.0, 90.0)
    >>> parse_http_date("soon") is None
    True
    """
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def parse_retry_after(headers: Mapping[str, str], now_at: float) -> float | None:
    """
    Return the longest wait that a response asks for, in seconds from 0 to `MAX_RETRY_AFTER_S`; None if it asks for none.

    It may be ``Retry-After`` (seconds or an HTTP date), ``retry-after-ms`` or ``openai-poll-after-ms``
    (fact F58). A date in the past is 0; a value that makes no sense is ignored.

    Args:
        now_at: The wall clock, in seconds since 1970, for a date.

    >>> parse_retry_after({"Retry-After": "7"}, now_at=0)
    7.0
    >>> parse_retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:30 GMT"}, now_at=60)
    30.0
    >>> parse_retry_after({"openai-poll-after-ms": "2500"}, now_at=0)
    2.5
    """
    if _WAITS.isdisjoint(map(str.lower, headers)):
        # As in nearly every answer.
        return None
    waits = []
    for name, value in headers.items():
        if name.lower() == "retry-after":
            waits.append(_seconds_or_date(value, now_at))
        elif name.lower() in _IN_MS:
            wait_ms = _number(value)
            waits.append(None if wait_ms is None else wait_ms / 1000)
    return max((min(max(wait, 0.0), MAX_RETRY_AFTER_S) for wait in waits if wait is not None), default=None)


def _seconds_or_date(text: str, now_at: float) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    at = parse_http_date(text)
    return None if at is None else at - now_at


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
