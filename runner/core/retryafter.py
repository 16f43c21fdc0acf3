"""Read how long a server wishes us to wait, in every form it may say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

MOST_S = 3600.0
"""No wish is honoured beyond this: a server with a wrong clock must not put a run to sleep for a year."""


def read_wait(headers: Mapping[str, str], now_at: float) -> float | None:
    """
    Find the longest wish of an answer, in seconds from 0 to `MOST_S`, or None where it has none.

    It may be ``Retry-After`` (seconds or an HTTP date), ``retry-after-ms`` or
    ``openai-poll-after-ms`` (wire facts 4.3). A wish in the past is 0; one that makes
    no sense is none.

    Args:
        now_at: The wall clock, in seconds since 1970, for a date.

    >>> read_wait({"Retry-After": "7"}, now_at=0)
    7.0
    >>> read_wait({"Retry-After": "Thu, 01 Jan 1970 00:01:30 GMT"}, now_at=60)
    30.0
    >>> read_wait({"openai-poll-after-ms": "2500"}, now_at=0)
    2.5
    """
    waits = []
    for name, value in headers.items():
        match name.lower():
            case "retry-after":
                wait_s = _seconds(value, 1)
                waits.append(_until(value, now_at) if wait_s is None else wait_s)
            case "retry-after-ms" | "openai-poll-after-ms":
                waits.append(_seconds(value, 1000))
    return max((wait for wait in waits if wait is not None), default=None)


def _seconds(text: str, per_second: int) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else _bounded(number / per_second)


def _until(text: str, now_at: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        # HTTP dates are GMT by definition, also where the zone is missing.
        return _bounded((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_at)
    except (ValueError, OverflowError):
        return None


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, 0.0), MOST_S)
