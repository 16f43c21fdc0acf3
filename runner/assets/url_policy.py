"""
Which addresses an asset may be fetched from, and which of them may see the key.

The addresses come from answers of the API and from redirects, so they are held to this:

- http and https only, without a user name, and never from https down to http;
- the key goes to the gateway's origin (scheme, host and port) and nowhere else; once a
  chain of redirects has left that origin, the key is not sent again even if it returns;
- where the manifest names `assets.hosts`, to those hosts and the gateway's alone;
- only to public network addresses. A gateway on a loopback, private or link-local address
  makes addresses of that same kind permissible, since its assets are its neighbours.

The last rule is held twice: here for addresses written as numbers, and for names when they
are resolved for the very connection (`runner.assets.resolver`), so that no later answer of
the DNS can change what was checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct
from yarl import URL

from runner.core.addresses import AddressScope, address_scope

MAX_REDIRECTS = 5
_MAX_CHARACTERS = 16_384

_ILLEGAL = re.compile(r"[\x00-\x20\x7f\\]")
_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AddressRefused(ValueError):
    """An address must not be fetched; the message says why, as a sentence without the address's query."""


Origin = tuple[str, str, int]
"""Scheme, host and port, as browsers compare them."""


class Hop(Struct, frozen=True):
    """
    One request on the way to an asset.

    Attributes:
        has_key: Whether the request carries the key.
        is_astray: Whether the chain has left the gateway's origin, after which no request carries it.
    """

    url: URL
    has_key: bool
    is_astray: bool


class UrlPolicy(Struct, frozen=True):
    """
    Decides about addresses.

    Attributes:
        gateway: Its origin.
        hosts: What the manifest pins: ``cdn.example.com`` is that host alone, ``*.example.com`` every host
            below example.com; None for any public host.
    """

    gateway: Origin
    hosts: tuple[str, ...] | None = None

    def first(self, url: str) -> Hop:
        """
        Judge the address that an answer of the API gives.

        Raises:
            AddressRefused: It must not be fetched.
        """
        address = parse(url)
        self._check_host(address)
        is_gateway = origin(address) == self.gateway
        return Hop(address, has_key=is_gateway, is_astray=not is_gateway)

    def follow(self, hop: Hop, location: str) -> Hop:
        """
        Judge where a redirect points.

        Raises:
            AddressRefused: It must not be followed.
        """
        target = parse(location, base=hop.url)
        if hop.url.scheme == "https" and target.scheme == "http":
            raise AddressRefused(
                f"{display_url(hop.url)} redirects from https to http, at {display_url(target)}"
            )
        self._check_host(target)
        is_astray = hop.is_astray or origin(target) != self.gateway
        return Hop(target, has_key=not is_astray, is_astray=is_astray)

    def _check_host(self, url: URL) -> None:
        host = url.raw_host or ""
        if self.hosts is None or origin(url) == self.gateway or is_pinned(host, self.hosts):
            return
        raise AddressRefused(f"{display_url(url)} is on a host that assets.hosts does not name")


def parse(url: str, *, base: URL | None = None) -> URL:
    """
    Read an address without changing a byte of it, since a signature may cover them all.

    Raises:
        AddressRefused: It is no absolute http or https address, or one that hides where it leads.
    """
    is_plain = _PLAIN.fullmatch(url) is not None
    if not is_plain and _ILLEGAL.search(url):
        raise AddressRefused("the address of the asset has characters that no address can have")
    if len(url) > _MAX_CHARACTERS:
        raise AddressRefused(f"the address of the asset has {len(url)} characters")
    try:
        address = URL(url, encoded=is_plain)
        if base is not None:
            address = base.join(address)
        host, port = address.raw_host, address.port
    except ValueError:
        raise AddressRefused("the address of the asset is not readable as one") from None
    if address.scheme not in _DEFAULT_PORTS:
        raise AddressRefused(
            f"the address of the asset has the scheme {address.scheme[:20] or 'none'!r}, not http(s)"
        )
    if not host or not port:
        raise AddressRefused("the address of the asset names no host")
    if "@" in address.raw_authority:
        raise AddressRefused(
            f"{display_url(address)} carries a user name, which can hide where an address leads"
        )
    return address


def origin(url: URL) -> Origin:
    """
    Name the origin of an address; a port that goes without saying counts as said.

    >>> origin(URL("https://API.example.com")) == origin(URL("https://api.example.com:443/v1"))
    True
    """
    return url.scheme, (url.raw_host or "").lower(), url.port or 0


def display_url(url: URL) -> str:
    """
    Write an address for a person: without its query, which may be a signature.

    >>> display_url(URL("https://cdn.example.com/a.mp4?X-Signature=secret"))
    'https://cdn.example.com/a.mp4'
    """
    port = "" if url.port == _DEFAULT_PORTS.get(url.scheme) else f":{url.port}"
    path = url.raw_path if len(url.raw_path) <= 120 else url.raw_path[:119] + "…"
    return f"{url.scheme}://{url.raw_host}{port}{path}"


def is_pinned(host: str, hosts: Sequence[str]) -> bool:
    """
    Say whether the manifest's `assets.hosts` has a host.

    >>> is_pinned("a.cdn.example.com", ["*.example.com"]), is_pinned("example.com", ["*.example.com"])
    (True, False)
    """
    host = host.lower().rstrip(".")
    for entry in hosts:
        name = entry.lower().rstrip(".")
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


@lru_cache(maxsize=1024)
def literal_scope(host: str) -> AddressScope | None:
    """
    Say from where a host can be reached that is written as a network address; None where it is a name.

    Raises:
        AddressRefused: As for `literal`.
    """
    address = literal(host)
    return None if address is None else address_scope(address)


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """
    Read a host that is written as a network address; None where it is a name.

    Raises:
        AddressRefused: It is a number in a form that programs read differently, such as 0x7f.1 or 2130706433.

    >>> literal("127.0.0.1"), literal("cdn.example.com")
    (IPv4Address('127.0.0.1'), None)
    """
    bare = host.strip("[]").rstrip(".")
    try:
        return ip_address(bare)
    except ValueError:
        # What the last part says decides for browsers too whether a host is meant as a number.
        if _NUMERIC.fullmatch(bare.rpartition(".")[2].lower()):
            raise AddressRefused(f"the host {host[:60]!r} is a network address in a disguise") from None
        return None
