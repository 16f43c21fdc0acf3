"""
From where a network address can be reached; and from which URLs to download an asset, and when to poll for new ones.

A URL from an answer may have expired, or never have worked; polling the task gives new ones, and the
gateway has a route of its own for the video (facts F77, F78, F80). Downloads are free, so all of them are
tried before an asset that was paid for counts as undelivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct, field

_HOLDING_IPV4 = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0:0/96"),
)
"""
Networks whose addresses hold an IPv4 address in their last 32 bits, to which a translator on the path, or the
system itself, may connect: RFC 6052, RFC 4291 2.5.5.1 (such as ::127.0.0.1), RFC 2765.
"""


class AddressScope(StrEnum):
    """From where a network address can be reached."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Home and company networks, and those between a provider and its customers (RFC 1918, 6598, 4193)."""
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    """Among them the address that gives cloud machines their own credentials."""
    RESERVED = "reserved"
    """Multicast, unspecified, documentation and unassigned addresses."""


def address_scope(address: IPv4Address | IPv6Address) -> AddressScope:
    """
    Return the scope of an address, or of the IPv4 address that it wraps.

    >>> address_scope(ip_address("::ffff:169.254.169.254")), address_scope(ip_address("100.64.0.1"))
    (<AddressScope.LINK_LOCAL: 'link-local'>, <AddressScope.PRIVATE: 'private'>)
    """
    if isinstance(address, IPv6Address) and (wrapped := _wrapped_ipv4(address)) is not None:
        address = wrapped
    if address.is_multicast or address.is_unspecified:
        return AddressScope.RESERVED
    if address.is_loopback:
        return AddressScope.LOOPBACK
    if address.is_link_local:
        return AddressScope.LINK_LOCAL
    if address.is_global and not getattr(address, "is_site_local", False):
        return AddressScope.PUBLIC
    return AddressScope.RESERVED if address.is_reserved else AddressScope.PRIVATE


def _wrapped_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.is_loopback or address.is_unspecified:
        return None
    if any(address in network for network in _HOLDING_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


_INTERNAL_SUFFIXES = (
    ".localhost",
    ".local",
    ".internal",
    ".intranet",
    ".lan",
    ".corp",
    ".home",
    ".home.arpa",
)


def is_internal_name(host: str) -> bool:
    """
    Return whether a host's name is one that only a private network resolves.

    >>> is_internal_name("metadata.google.internal"), is_internal_name("db"), is_internal_name("cdn.example.com")
    (True, True, False)
    """
    name = host.lower().rstrip(".")
    return "." not in name or name.endswith(_INTERNAL_SUFFIXES)


def is_loopback_host(host: str) -> bool:
    """
    Return whether the host of a URL, a name or a network address without brackets, is this machine itself.

    >>> is_loopback_host("localhost"), is_loopback_host("127.0.0.1"), is_loopback_host("192.168.1.1")
    (True, True, False)
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return address_scope(ip_address(name)) is AddressScope.LOOPBACK
    except ValueError:
        return False


def unencrypted_host(url: str) -> str | None:
    """
    Return the host to which a request would travel over a network unencrypted; None if it would not.

    >>> unencrypted_host("http://api.example.com/v1"), unencrypted_host("http://127.0.0.1:8080")
    ('api.example.com', None)
    """
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
    except ValueError:
        return None
    return host if host and parts.scheme.lower() == "http" and not is_loopback_host(host) else None


DEFAULT_LIFETIME_S = 24 * 3600.0
"""How long a URL works that does not say so: the shortest of the documented times (fact F77)."""

MAX_POLLS = 2
MAX_URLS = 8
"""Tried for one asset; an answer may name any number of them."""
READY_S = 120.0
"""
How long after its task's success an address may give nothing, or a page, as long as the host does not have the file
everywhere (fact F82).
"""


class NextStep(Enum):
    """What to do when no URL is left to try."""

    POLL_AGAIN = auto()
    GIVE_UP = auto()


class UrlSearch(Struct):
    """
    The search for one asset: gets the URLs of each answer, and returns the next one to try.

    Args:
        content_url: The gateway's own route for the asset, or None if there is none.

    >>> search = UrlSearch("https://api.example/v1/videos/task_1/content")
    >>> search.offer(["https://cdn.example/a.mp4"])
    >>> search.next_step()
    'https://cdn.example/a.mp4'
    >>> search.next_step()
    <NextStep.POLL_AGAIN: 1>
    >>> search.next_step()
    'https://api.example/v1/videos/task_1/content'
    """

    content_url: str | None = None
    _waiting: list[str] = field(default_factory=list)
    _tried: set[str] = field(default_factory=set)
    _polls: int = 0

    def offer(self, urls: Iterable[str]) -> None:
        """Set the URLs of the newest answer; those that were tried already are left out."""
        self._waiting = [url for url in dict.fromkeys(urls) if url not in self._tried]

    def next_step(self) -> str | NextStep:
        """Return the URL to try next, or what to do instead."""
        if self._waiting and len(self._tried) < MAX_URLS:
            return self._try(self._waiting.pop(0))
        # If the answer had no URL at all, the route comes first: polling again at once would give
        # the same answer (fact F78).
        may_poll = self._polls < MAX_POLLS
        if may_poll and self._tried and self._polls == 0:
            return self._poll()
        if self.content_url is not None and self.content_url not in self._tried:
            return self._try(self.content_url)
        return self._poll() if may_poll else NextStep.GIVE_UP

    def start_again(self) -> None:
        """Forget what was tried: all of it may work a little later."""
        self._tried.clear()
        self._polls = 0

    def _try(self, url: str) -> str:
        self._tried.add(url)
        return url

    def _poll(self) -> NextStep:
        self._polls += 1
        return NextStep.POLL_AGAIN


_ISO_BASIC = "%Y%m%dT%H%M%SZ"
_EXPIRES = re.compile(r"x-[a-z]+-expires", re.IGNORECASE)
_DATE = re.compile(r"x-[a-z]+-date", re.IGNORECASE)


def expires_at(url: str, *, seen_at: float) -> float:
    """
    Return until when a URL can be expected to work, in seconds since 1970.

    Reads the parameters of the usual signatures: ``Expires`` (seconds since 1970), and ``X-…-Date`` with
    ``X-…-Expires`` (seconds after it). Never raises; if there is nothing to read, it is 24 h after ``seen_at``.

    >>> expires_at("https://cdn.example/a.mp4?Expires=2000000000&Signature=x", seen_at=0.0)
    2000000000.0
    >>> expires_at("https://cdn.example/a.mp4", seen_at=10.0)
    86410.0
    """
    if "?" not in url:
        return seen_at + DEFAULT_LIFETIME_S
    try:
        query = dict(parse_qsl(urlsplit(url).query))
        if "Expires" in query:
            return float(int(query["Expires"]))
        lifetime_s = next((int(value) for name, value in query.items() if _EXPIRES.fullmatch(name)), None)
        date = next((value for name, value in query.items() if _DATE.fullmatch(name)), None)
        if lifetime_s is None:
            return seen_at + DEFAULT_LIFETIME_S
        return (seen_at if date is None else _parse_basic(date)) + lifetime_s
    except (ValueError, OverflowError):
        return seen_at + DEFAULT_LIFETIME_S


def _parse_basic(text: str) -> float:
    return datetime.strptime(text, _ISO_BASIC).replace(tzinfo=UTC).timestamp()
