"""
Check what a host name resolves to before it is connected to.

The check is in the resolver, and the connector uses the very addresses that it
returned: a name whose next lookup gives another address (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from runner.assets.url_policy import Origin, UrlRefused, literal_scope
from runner.core.addresses import AddressScope, address_scope, is_internal_name


class ForbiddenAddress(OSError):
    """A host has only addresses that assets must not be downloaded from."""


class AddressPolicy:
    """
    Decides which network addresses are allowed: public ones, and those of the same scope as the gateway's.

    Args:
        is_proxied: Whether a proxy connects to the gateway. Its name need not resolve here then, and is a public one.
    """

    def __init__(self, gateway: Origin, resolver: AbstractResolver, *, is_proxied: bool = False) -> None:
        self._gateway = gateway
        self._is_proxied = is_proxied
        self._resolver = resolver
        self._allowed: frozenset[AddressScope] | None = None

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
        if host == self._gateway[1]:
            return
        if literal_scope(host) is None and is_internal_name(host):
            raise UrlRefused(f"the host {host} is of a private network; assets must be on public ones")
        await self.check_literal(host)

    async def _gateway_scopes(self) -> frozenset[AddressScope]:
        _, host, port = self._gateway
        try:
            scope = literal_scope(host)
        except UrlRefused:
            return frozenset()
        if scope is not None:
            return frozenset({scope})
        try:
            results = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        except OSError:
            if self._is_proxied:
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
