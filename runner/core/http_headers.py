"""Read HTTP headers that carry a time: dates, and how long to wait before the next request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

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
