"""
Connections to hosts that nobody trusts: what a name resolves to is checked before it is connected to.

The check sits in the resolver, and the connector uses the very addresses that it
passed on: a name whose next lookup gives something else (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from runner.assets.url_policy import AddressRefused, Origin, literal_scope
from runner.core.addresses import AddressScope, address_scope


class ForbiddenAddress(OSError):
    """A host lies where assets must not be fetched from."""


class AddressPolicy:
    """Knows which network addresses are permissible: the public ones, and those of the gateway's own kind."""

    def __init__(self, gateway: Origin, resolver: AbstractResolver) -> None:
        self._gateway = gateway
        self._resolver = resolver
        self._reaches: frozenset[AddressScope] | None = None

    async def permitted(self) -> frozenset[AddressScope]:
        """
        Say which addresses are permissible; the gateway is looked up once.

        Raises:
            OSError: The gateway's name can't be resolved now.
        """
        if self._reaches is None:
            own = await self._gateway_reaches()
            self._reaches = (own - {AddressScope.RESERVED}) | {AddressScope.PUBLIC}
        return self._reaches

    async def check_literal(self, host: str) -> None:
        """
        Check a host that is written as a network address, which no resolver ever sees.

        Raises:
            AddressRefused: It is not permissible.
            OSError: The gateway's name can't be resolved now, and it would decide.
        """
        found = literal_scope(host)
        if found is None or found is AddressScope.PUBLIC:
            return
        if found not in await self.permitted():
            raise AddressRefused(f"the host {host} is a {found} address, and assets come from public ones")

    async def _gateway_reaches(self) -> frozenset[AddressScope]:
        _, host, port = self._gateway
        try:
            own = literal_scope(host)
        except AddressRefused:
            return frozenset()
        if own is not None:
            return frozenset({own})
        found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        return frozenset(_reach(result) for result in found)


class GuardedResolver(AbstractResolver):
    """Resolves names, and keeps back every address that is not permissible."""

    def __init__(self, gateway: Origin, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()
        self.policy = AddressPolicy(gateway, self._resolver)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """
        Resolve a name to its permissible addresses.

        Raises:
            ForbiddenAddress: It has none.
        """
        found = await self._resolver.resolve(host, port, family)
        if all(_reach(result) is AddressScope.PUBLIC for result in found):
            return found
        permitted = await self.policy.permitted()
        kept = [result for result in found if _reach(result) in permitted]
        if not kept:
            kinds = ", ".join(sorted({_reach(result) for result in found}))
            raise ForbiddenAddress(
                f"the host {host} lies at a {kinds} address, and assets come from public ones"
            )
        return kept

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._resolver.close()


def _reach(result: ResolveResult) -> AddressScope:
    # A link-local IPv6 address comes with its zone behind a percent sign.
    return address_scope(ip_address(result["host"].partition("%")[0]))
