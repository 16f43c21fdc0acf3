"""Which network addresses assets may be on, as the gateway's own address decides."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import ResolveResult
from yarl import URL

from runner.assets.url_policy import AddressPolicy, ForbiddenAddress, GuardedResolver, UrlRefused, origin
from runner.core.addresses import AddressScope
from tests.assets.test_url_policy import FakeResolver


class ManyAddresses(FakeResolver):
    """Gives all addresses of a name at once, and counts the lookups."""

    lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.lookups += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses[host]
        ]


@pytest.mark.parametrize(
    ("gateway", "scopes"),
    [
        ("https://api.example.com", {AddressScope.PUBLIC}),
        ("http://127.0.0.1:8080", {AddressScope.PUBLIC, AddressScope.LOOPBACK}),
        ("http://10.0.0.1", {AddressScope.PUBLIC, AddressScope.PRIVATE}),
        ("http://0x7f.1", {AddressScope.PUBLIC}),
        ("http://0.0.0.0", {AddressScope.PUBLIC}),
        ("http://both.example.com", {AddressScope.PUBLIC, AddressScope.PRIVATE, AddressScope.LOOPBACK}),
    ],
)
async def test_scopes_of_the_gateway_are_allowed(gateway: str, scopes: set[AddressScope]) -> None:
    """Besides public addresses; a gateway on a reserved or ambiguous one allows nothing more."""
    resolver = ManyAddresses(api_example_com="93.184.216.34", both_example_com="10.0.0.1 127.0.0.1")
    policy = AddressPolicy(origin(URL(gateway, encoded=True)), resolver)

    assert scopes == await policy.allowed_scopes() == await policy.allowed_scopes()
    assert resolver.lookups <= 1


async def test_allowed_addresses_of_a_name_are_used() -> None:
    """The others are left out; if none is left, the name is refused."""
    resolver = ManyAddresses(
        api_example_com="93.184.216.34",
        public_example_com="93.184.216.34 93.184.216.35",
        mixed_example_com="10.0.0.1 93.184.216.34",
        inner_example_com="10.0.0.1 127.0.0.1",
    )
    guarded = GuardedResolver(origin(URL("https://api.example.com")), resolver)

    public = await guarded.resolve("public.example.com", 443)
    mixed = await guarded.resolve("mixed.example.com", 443)
    with pytest.raises(ForbiddenAddress, match="loopback, private"):
        await guarded.resolve("inner.example.com", 443)

    assert ["93.184.216.34", "93.184.216.35"] == [result["host"] for result in public]
    assert ["93.184.216.34"] == [result["host"] for result in mixed]


async def test_addresses_that_are_written_as_numbers_are_checked() -> None:
    """No resolver sees them; names are left to it."""
    policy = AddressPolicy(origin(URL("http://10.0.0.1")), FakeResolver())

    for host in ("93.184.216.34", "10.2.3.4", "cdn.example.com"):
        await policy.check_literal(host)
    with pytest.raises(UrlRefused, match="loopback"):
        await policy.check_literal("127.0.0.1")


async def test_zone_of_an_address_does_not_matter() -> None:
    """A link-local address of IPv6 has the name of an interface behind it."""
    resolver = ManyAddresses(cdn_example_com="fe80::1%eth0")
    guarded = GuardedResolver(origin(URL("https://93.184.216.34")), resolver)

    with pytest.raises(ForbiddenAddress, match="link-local"):
        await guarded.resolve("cdn.example.com", 443)
