"""Where assets may come from, and who sees the key."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from runner.assets.request import Fetched, FetchFailure, NotFetched
from runner.assets.url_policy import (
    AddressRefused,
    UrlPolicy,
    literal,
    origin,
    parse,
)
from runner.core.settings import AssetRules
from tests.assets.helpers import KEY, LOOPBACK_GATEWAY, fetcher, wish
from tests.assets.server import Answer, file, redirect, serving
from tests.media.samples import mp4

VIDEO = mp4(1_000)
PUBLIC_GATEWAY = "https://api.example.com"
GATE = UrlPolicy(origin(URL(PUBLIC_GATEWAY)))


class Names(AbstractResolver):
    """Resolves names from a table, one answer after the other: the last one stays."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = {name.replace("_", "."): found.split() for name, found in addresses.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.addresses:
            raise socket.gaierror(f"{host} is not known")
        found = self.addresses[host]
        address = found.pop(0) if len(found) > 1 else found[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1", "0x7f000001", "1.2.3.4.5"]
)
def test_disguised_numbers_are_refused(host: str) -> None:
    """What one program takes for a name and another for an address is neither here."""
    with pytest.raises(AddressRefused, match="in a disguise"):
        literal(host)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "data:video/mp4;base64,AAAA",
        "ftp://example.com/a.mp4",
        "//example.com/a.mp4",
        "/a.mp4",
        "",
        "https://",
        "https://user:pass@example.com/a.mp4",
        "https://api.example.com@evil.example/a.mp4",
        "https://example.com:99999/a.mp4",
        "https://example.com/a\r\nHost: evil",
        "https://example.com\\@evil.example/",
        "https://[::1/a.mp4",
        "https://example.com/" + "a" * 20_000,
    ],
)
def test_addresses_that_are_no_plain_http_are_refused(url: str) -> None:
    """Nothing but http(s) with a plain host is fetched, and the reason quotes no query."""
    with pytest.raises(AddressRefused):
        GATE.first(url)


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://a.example/", "https://[", "//"]))
def test_no_address_crashes_the_reader(text: str, start: str) -> None:
    """An address from an answer is read or refused, whatever it is."""
    try:
        address = parse(start + text)
    except AddressRefused:
        return
    assert address.scheme in ("http", "https")


def test_a_signed_address_is_asked_for_as_it_was_given() -> None:
    """A signature covers every byte, so nothing is decoded, sorted or encoded anew."""
    url = "https://cdn.example.com/a%2Fb%7Ec.mp4?X-Sig=a%2Bb%3D&x=1+2&Y=%e4"

    assert url == str(parse(url))


@pytest.mark.parametrize(
    ("url", "has_key"),
    [
        ("https://api.example.com/v1/videos/x/content", True),
        ("https://API.example.com:443/v1/videos/x/content", True),
        ("http://api.example.com/v1/videos/x/content", False),
        ("https://api.example.com:8443/a", False),
        ("https://cdn.api.example.com/a", False),
        ("https://api.example.com.evil.example/a", False),
    ],
)
def test_the_key_goes_to_the_origin_of_the_gateway_alone(url: str, has_key: bool) -> None:
    """Scheme, host and port decide; the field that the address stood in does not."""
    assert has_key == GATE.first(url).has_key


def test_a_key_that_was_dropped_stays_dropped() -> None:
    """A host on the way can't send the key, through a redirect, to an address of its own choice."""
    start = GATE.first("https://api.example.com/v1/videos/x/content")
    inside = GATE.follow(start, "/elsewhere?x=1")
    outside = GATE.follow(inside, "https://cdn.example.com/a.mp4")
    back = GATE.follow(outside, "https://api.example.com/v1/anything")

    assert [hop.has_key for hop in (start, inside, outside, back)] == [True, True, False, False]


def test_a_redirect_from_https_to_http_is_refused() -> None:
    """Nobody on the way gets to read or change the file."""
    with pytest.raises(AddressRefused, match="from https to http"):
        GATE.follow(GATE.first("https://cdn.example.com/a.mp4?sig=1"), "http://cdn.example.com/a.mp4?sig=1")


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("https://cdn.example.com/a", False),
        ("https://a.b.media.example/a", False),
        ("https://api.example.com/a", False),
        ("https://media.example/a", True),
        ("https://evil-media.example/a", True),
        ("https://sub.cdn.example.com/a", True),
    ],
)
def test_pinned_hosts(url: str, is_refused: bool) -> None:
    """A name pins one host, a star all below one, and the gateway needs no pin."""
    gate = UrlPolicy(GATE.gateway, hosts=("CDN.example.com", "*.media.example"))

    if is_refused:
        with pytest.raises(AddressRefused, match=r"assets\.hosts"):
            gate.first(url)
    else:
        gate.first(url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "2130706433"]
)
async def test_inner_addresses_are_not_even_connected_to(host: str, tmp_path: Path) -> None:
    """An answer of a public gateway can't make this machine read its own network."""
    names = Names(api_example_com="93.184.216.34")
    async with serving(file(VIDEO)) as server, fetcher(PUBLIC_GATEWAY, resolver=names) as fetch:
        result = await fetch.fetch(wish(server.url(host=host), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert server.requests == []


async def test_a_name_that_lies_inside_is_refused_when_it_is_connected_to(tmp_path: Path) -> None:
    """The check is of the very address that is connected to, so the DNS can't change its mind in between."""
    names = Names(api_example_com="93.184.216.34", cdn_example_com="127.0.0.1")
    async with serving(file(VIDEO)) as server, fetcher(PUBLIC_GATEWAY, resolver=names) as fetch:
        result = await fetch.fetch(wish(server.url(host="cdn.example.com"), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert "lies at a loopback address" in result.failure.message
    assert server.requests == []


async def test_neighbours_of_the_gateway_are_permissible(tmp_path: Path) -> None:
    """A gateway on this machine may keep its files on this machine, under a name or a number."""
    names = Names(gateway_test="127.0.0.1", files_test="127.0.0.1", router_test="192.168.1.1")
    async with serving(file(VIDEO)) as server, fetcher("http://gateway.test", resolver=names) as fetch:
        near = await fetch.fetch(wish(server.url(host="files.test"), tmp_path))
        beyond = await fetch.fetch(wish(server.url(host="router.test"), tmp_path))

    assert isinstance(near, Fetched)
    assert isinstance(beyond, NotFetched)
    assert FetchFailure.REFUSED is beyond.reason


async def test_an_unknown_name_is_tried_again(tmp_path: Path) -> None:
    """A laptop that lost its network finds it again; nothing is given up at once."""
    async with fetcher(resolver=Names()) as fetch:
        result = await fetch.fetch(wish("http://cdn.example.com/a.mp4?sig=s3cret", tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.EXHAUSTED is result.reason
    assert (
        result.failure.message
        == "no connection to http://cdn.example.com/a.mp4: its host name could not be resolved"
    )


async def test_the_key_is_dropped_on_the_way_to_another_origin(tmp_path: Path) -> None:
    """The gateway may point to a CDN; the CDN never sees the key."""
    async with serving(file(VIDEO)) as cdn, serving() as gateway:
        gateway.answers = [redirect("/inside"), redirect(cdn.url("/a.mp4?sig=1"), 307)]
        async with fetcher(gateway.url("")) as fetch:
            result = await fetch.fetch(wish(gateway.url("/content"), tmp_path))

    assert isinstance(result, Fetched)
    assert [f"Bearer {KEY}"] * 2 == [request.headers["authorization"] for request in gateway.requests]
    assert [request.path for request in cdn.requests] == ["/a.mp4?sig=1"]
    assert "authorization" not in cdn.requests[0].headers


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ((redirect("/a.mp4"),) * 9, 6),
        ((redirect("file:///etc/passwd"),), 1),
        ((redirect("https://user@cdn.example.com/"),), 1),
        ((redirect("http://169.254.169.254/latest/meta-data/"),), 1),
    ],
    ids=["loop", "file", "user name", "cloud credentials"],
)
async def test_redirects_that_lead_nowhere_are_refused(
    answers: tuple[Answer, ...], requests: int, tmp_path: Path
) -> None:
    """Redirects are bounded, and each is held to the same rules as the first address."""
    async with serving(*answers) as server, fetcher() as fetch:
        result = await fetch.fetch(wish(server.url("/a.mp4?sig=s3cret"), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert "s3cret" not in result.failure.message
    assert requests == len(server.requests)


async def test_pinned_hosts_hold_for_redirects(tmp_path: Path) -> None:
    """A pinned host can't point to one that is not."""
    rules = AssetRules(hosts=("127.0.0.1",))
    async with (
        serving(redirect("http://localhost:1/a.mp4")) as server,
        fetcher(LOOPBACK_GATEWAY, rules=rules) as fetch,
    ):
        result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert "assets.hosts" in result.failure.message
