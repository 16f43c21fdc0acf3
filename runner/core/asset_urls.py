"""
Where to fetch an asset from, in which order, and when to ask for other addresses.

An address from an answer may have expired, or never have worked; the task can be
asked for fresh ones, and the gateway has a route of its own for the video (facts
F77, F78, F80). Fetching is free, so every way is tried before an asset
that was paid for is called undelivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, auto
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct, field

LIFETIME_S = 24 * 3600.0
"""How long an address lasts that does not say so: the shortest of the documented times (fact F77)."""

MOST_REQUERIES = 2


class NextStep(Enum):
    """What to do where there is no address to try."""

    ASK_AGAIN = auto()
    GIVE_UP = auto()


class UrlSearch(Struct):
    """
    The search for one asset. Takes addresses in, and gives out the next thing to try.

    Args:
        content_url: The gateway's own route for the asset, or None where it has none.

    >>> search = UrlSearch("https://api.example/v1/videos/task_1/content")
    >>> search.offer(["https://cdn.example/a.mp4"])
    >>> search.next_step()
    'https://cdn.example/a.mp4'
    >>> search.next_step()
    <NextStep.ASK_AGAIN: 1>
    >>> search.next_step()
    'https://api.example/v1/videos/task_1/content'
    """

    content_url: str | None = None
    _waiting: list[str] = field(default_factory=list)
    _tried: set[str] = field(default_factory=set)
    _requeries: int = 0

    def offer(self, urls: Iterable[str]) -> None:
        """Add the addresses of an answer; those that were tried already are passed over."""
        self._waiting = [url for url in dict.fromkeys(urls) if url not in self._tried]

    def next_step(self) -> str | NextStep:
        """Name the address to try next, or what to do instead."""
        if self._waiting:
            return self._take(self._waiting.pop(0))
        # Where the answer named no address at all, the route comes first: asking again at once
        # would hear the same (fact F78).
        may_ask = self._requeries < MOST_REQUERIES
        if may_ask and self._tried and self._requeries == 0:
            return self._ask()
        if self.content_url is not None and self.content_url not in self._tried:
            return self._take(self.content_url)
        return self._ask() if may_ask else NextStep.GIVE_UP

    def _take(self, url: str) -> str:
        self._tried.add(url)
        return url

    def _ask(self) -> NextStep:
        self._requeries += 1
        return NextStep.ASK_AGAIN


_ISO_BASIC = "%Y%m%dT%H%M%SZ"
_LASTS = re.compile(r"x-[a-z]+-expires", re.IGNORECASE)
_SIGNED = re.compile(r"x-[a-z]+-date", re.IGNORECASE)


def expires_at(url: str, *, seen_at: float) -> float:
    """
    Say until when an address can be expected to work, in seconds since 1970.

    Reads the marks of the usual signatures: ``Expires`` (seconds since 1970), and ``X-…-Date`` with
    ``X-…-Expires`` (seconds after it). Never raises; what can't be read counts as 24 h from ``seen_at``.

    >>> expires_at("https://cdn.example/a.mp4?Expires=2000000000&Signature=x", seen_at=0.0)
    2000000000.0
    >>> expires_at("https://cdn.example/a.mp4", seen_at=10.0)
    86410.0
    """
    if "?" not in url:
        return seen_at + LIFETIME_S
    try:
        query = dict(parse_qsl(urlsplit(url).query))
        if "Expires" in query:
            return float(int(query["Expires"]))
        lasts = next((int(value) for name, value in query.items() if _LASTS.fullmatch(name)), None)
        signed = next((value for name, value in query.items() if _SIGNED.fullmatch(name)), None)
        if lasts is None:
            return seen_at + LIFETIME_S
        since = seen_at if signed is None else _read_basic(signed)
        return since + lasts
    except (ValueError, OverflowError):
        return seen_at + LIFETIME_S


def _read_basic(text: str) -> float:
    return datetime.strptime(text, _ISO_BASIC).replace(tzinfo=UTC).timestamp()
