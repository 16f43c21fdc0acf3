"""
Which URLs an asset may be downloaded from, which of them may get the key, and what host names resolve to.

The URLs come from responses of the API and from redirects, so these rules apply:

- http and https only, without a user name, and never from https down to http;
- the key goes to the gateway's origin (scheme, host and port) and nowhere else; once a
  chain of redirects has left that origin, the key is not sent again even if it returns;
- if the manifest names `assets.hosts`, to those hosts and the gateway's alone;
- only to public network addresses. A gateway on a loopback, private or link-local address
  makes addresses of that same scope allowed, since its assets are beside it.

The last rule is applied twice: to hosts written as numbers, and to names when they are resolved for the very connection.
The connector uses the very addresses that the resolver returned: a name whose next lookup gives another address (DNS
rebinding) gains nothing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from runner.core.addresses import AddressScope, address_scope, is_internal_name

MAX_REDIRECTS = 5
_MAX_CHARS = 16_384

_UNUSUAL_CHARS = re.compile(r"[^!-\[\]-~]")
_INVALID_CHARS = re.compile(r"[\x00-\x1f\x7f\\]")
_TO_ENCODE = re.compile(r"[^\x21-\x7e]+")
_AUTHORITY = re.compile(r"((?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//)([^/?#]*)")
_MAX_LABEL_CHARS, _MAX_HOST_CHARS = 63, 253
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class UrlRefused(ValueError):
    """A URL must not be requested; the message is a sentence that says why, without the URL's query."""


Origin = tuple[str, str, int]
"""Scheme, host and port, as browsers compare them."""


class Hop(Struct, frozen=True):
    """
    One request of a chain of redirects.

    Attributes:
        sends_key: Whether the request carries the key.
        left_gateway: Whether the chain has left the gateway's origin, after which no request carries the key.
    """

    url: URL
    sends_key: bool
    left_gateway: bool


class UrlPolicy(Struct, frozen=True):
    """
    Decides about URLs.

    Attributes:
        gateway: Its origin.
        hosts: The hosts that the manifest allows: ``cdn.example.com`` is that host alone, ``*.example.com``
            every host below example.com; None for any public host.
    """

    gateway: Origin
    hosts: tuple[str, ...] | None = None

    def start(self, url: str) -> Hop:
        """
        Check a URL that a response of the API names.

        Raises:
            UrlRefused: It must not be requested.
        """
        target = parse_url(url)
        self._check_host(target)
        is_gateway = origin(target) == self.gateway
        return Hop(target, sends_key=is_gateway, left_gateway=not is_gateway)

    def follow(self, hop: Hop, location: str) -> Hop:
        """
        Check the target of a redirect.

        Raises:
            UrlRefused: It must not be followed.
        """
        target = parse_url(location, base=hop.url)
        if hop.url.scheme == "https" and target.scheme == "http":
            raise UrlRefused(f"{display_url(hop.url)} redirects from https to http: {display_url(target)}")
        self._check_host(target)
        left_gateway = hop.left_gateway or origin(target) != self.gateway
        return Hop(target, sends_key=not left_gateway, left_gateway=left_gateway)

    def _check_host(self, url: URL) -> None:
        if self.hosts is None or origin(url) == self.gateway or is_listed(url.raw_host or "", self.hosts):
            return
        raise UrlRefused(f"{display_url(url)} is on a host that assets.hosts does not list")


def parse_url(url: str, *, base: URL | None = None) -> URL:
    """
    Parse a URL without changing a byte of it, since a signature may cover them all.

    Spaces and characters outside ASCII, which no request can have, are percent-encoded.

    Raises:
        UrlRefused: It is not an absolute http or https URL, or hides its real host.
    """
    url = url.strip(" ")
    has_unusual = _UNUSUAL_CHARS.search(url) is not None
    if has_unusual and _INVALID_CHARS.search(url):
        raise UrlRefused("the asset URL has invalid characters")
    if len(url) > _MAX_CHARS:
        raise UrlRefused(f"the asset URL has {len(url)} characters; at most {_MAX_CHARS} are allowed")
    try:
        parsed = URL(_encode(url) if has_unusual else url, encoded=True)
        if base is not None and not parsed.scheme:
            parsed = base.join(parsed)
        host, port = parsed.raw_host, parsed.port
    except (ValueError, LookupError):
        # yarl raises an IndexError for http://[]@.
        raise UrlRefused("the asset URL is not valid") from None
    if parsed.scheme not in _DEFAULT_PORTS:
        raise UrlRefused(f"the asset URL has the scheme {parsed.scheme[:20] or 'none'!r}, not http or https")
    if not host or not port:
        raise UrlRefused("the asset URL has no host")
    is_long = len(host) > _MAX_LABEL_CHARS and max(map(len, host.split("."))) > _MAX_LABEL_CHARS
    if is_long or len(host) > _MAX_HOST_CHARS or " " in host:
        raise UrlRefused(f"the asset URL has a host that no name server knows: {host[:60]}…")
    if "@" in parsed.raw_authority:
        raise UrlRefused(f"{display_url(parsed)} has a user name, which can hide the real host")
    return parsed


def _encode(url: str) -> str:
    """Percent-encode what a request can't have; a host outside ASCII becomes its IDNA form."""
    match = _AUTHORITY.match(url)
    if match is None or match[2].isascii():
        start = "" if match is None else match[0]
    else:
        start = match[1] + URL(f"http://{match[2]}").raw_authority
    rest = url if match is None else url[match.end() :]
    # A header's bytes that are not UTF-8 are surrogates here.
    return start + _TO_ENCODE.sub(lambda found: quote(found[0].encode("utf-8", "surrogateescape")), rest)


def origin(url: URL) -> Origin:
    """
    Return the origin of a URL, with its scheme's default port if it names none.

    >>> origin(URL("https://API.example.com")) == origin(URL("https://api.example.com:443/v1"))
    True
    """
    return url.scheme, (url.raw_host or "").lower(), url.port or 0


def display_url(url: URL) -> str:
    """
    Return a URL for messages: without its query, which may be a signature.

    >>> display_url(URL("https://cdn.example.com/a.mp4?X-Signature=secret"))
    'https://cdn.example.com/a.mp4'
    """
    port = "" if url.port == _DEFAULT_PORTS.get(url.scheme) else f":{url.port}"
    path = url.raw_path if len(url.raw_path) <= 120 else url.raw_path[:119] + "…"
    return f"{url.scheme}://{url.raw_host}{port}{path}"


def is_listed(host: str, hosts: Sequence[str]) -> bool:
    """
    Return whether a host is one of the manifest's `assets.hosts`.

    >>> is_listed("a.cdn.example.com", ["*.example.com"]), is_listed("example.com", ["*.example.com"])
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
    Return the scope of a host that is written as a network address; None for a name.

    Raises:
        UrlRefused: As for `parse_literal`.
    """
    address = parse_literal(host)
    return None if address is None else address_scope(address)


def parse_literal(host: str) -> IPv4Address | IPv6Address | None:
    """
    Return the address of a host that is written as a network address; None for a name.

    Raises:
        UrlRefused: It is a number in a form that programs read differently, such as 0x7f.1 or 2130706433.

    >>> parse_literal("127.0.0.1"), parse_literal("cdn.example.com")
    (IPv4Address('127.0.0.1'), None)
    """
    bare = host.strip("[]").rstrip(".")
    try:
        return ip_address(bare)
    except ValueError:
        # For browsers too the last part decides whether a host is meant as a number.
        if _NUMERIC.fullmatch(bare.rpartition(".")[2].lower()):
            raise UrlRefused(f"the host {host[:60]!r} is a network address in an ambiguous form") from None
        return None


class ForbiddenAddress(OSError):
    """A host has only addresses that assets must not be downloaded from."""


class AddressPolicy(Struct):
    """
    Decides which network addresses are allowed: public ones, and those of the same scope as the gateway's.

    Args:
        is_proxied: Whether a proxy connects to the gateway. Its name need not resolve here then, and is a public one.
    """

    gateway: Origin
    resolver: AbstractResolver
    is_proxied: bool = False
    _allowed: frozenset[AddressScope] | None = None

    async def allowed_scopes(self) -> frozenset[AddressScope]:
        """
        Return the scopes of allowed addresses; the gateway is looked up once.

        Raises:
            OSError: The gateway's name can't be resolved now.
        """
        if self._allowed is None:
            gateway = await self._gateway_scopes()
            self._allowed = (gateway - {AddressScope.RESERVED}) | {AddressScope.PUBLIC}
        return self._allowed

    async def check_literal(self, host: str) -> None:
        """
        Check a host that is written as a network address, which no resolver ever sees.

        Raises:
            UrlRefused: It is not allowed.
            OSError: The gateway's name can't be resolved now, and it would decide.
        """
        scope = literal_scope(host)
        if scope is None or scope is AddressScope.PUBLIC:
            return
        if scope not in await self.allowed_scopes():
            raise UrlRefused(f"the host {host} is a {scope} address; assets must be on public ones")

    async def check_unresolved(self, host: str) -> None:
        """
        Check a host that a proxy resolves: by its name, or as `check_literal`.

        Raises:
            UrlRefused, OSError: As there.
        """
        if host == self.gateway[1]:
            return
        if literal_scope(host) is None and is_internal_name(host):
            raise UrlRefused(f"the host {host} is of a private network; assets must be on public ones")
        await self.check_literal(host)

    async def _gateway_scopes(self) -> frozenset[AddressScope]:
        _, host, port = self.gateway
        try:
            scope = literal_scope(host)
        except UrlRefused:
            return frozenset()
        if scope is not None:
            return frozenset({scope})
        try:
            results = await self.resolver.resolve(host, port, socket.AF_UNSPEC)
        except OSError:
            if self.is_proxied:
                return frozenset()
            raise
        return frozenset(map(_scope, results))


class GuardedResolver(AbstractResolver):
    """Resolves names, and leaves out every address that is not allowed."""

    def __init__(
        self, gateway: Origin, resolver: AbstractResolver | None = None, *, is_proxied: bool = False
    ) -> None:
        self._resolver = resolver or ThreadedResolver()
        self.policy = AddressPolicy(gateway, self._resolver, is_proxied=is_proxied)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """
        Resolve a name to its allowed addresses.

        Raises:
            ForbiddenAddress: It has none.
        """
        results = await self._resolver.resolve(host, port, family)
        if all(_scope(result) is AddressScope.PUBLIC for result in results):
            return results
        scopes = await self.policy.allowed_scopes()
        allowed = [result for result in results if _scope(result) in scopes]
        if not allowed:
            found = ", ".join(sorted(set(map(_scope, results))))
            raise ForbiddenAddress(f"the host {host} has a {found} address; assets must be on public ones")
        return allowed

    async def close(self) -> None:
        """Close the underlying resolver."""
        await self._resolver.close()


def _scope(result: ResolveResult) -> AddressScope:
    # A link-local IPv6 address has its zone after a percent sign.
    return address_scope(ip_address(result["host"].partition("%")[0]))
