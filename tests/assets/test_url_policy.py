"""Which URLs assets may be downloaded from, and who gets the key."""

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
    UrlPolicy,
    UrlRefused,
    origin,
    parse_literal,
    parse_url,
)
from runner.core.settings import AssetRules
from tests.assets.helpers import KEY, LOOPBACK_GATEWAY, asset_request, fetcher
from tests.assets.server import Response, redirect, serving, video
from tests.media.samples import mp4

VIDEO = mp4(1_000)
PUBLIC_GATEWAY = "https://api.example.com"
POLICY = UrlPolicy(origin(URL(PUBLIC_GATEWAY)))


class FakeResolver(AbstractResolver):
    """Resolves names from a table, one address after the other; the last one stays."""

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
def test_ambiguous_numbers_are_refused(host: str) -> None:
    """What one program takes for a name and another for an address is refused."""
    with pytest.raises(UrlRefused, match="in an ambiguous form"):
        parse_literal(host)


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
        "https://example.com/a\\b.mp4",
        "https://" + "a" * 64 + ".example/a.mp4",
        "https://" + "a.b." * 64 + "example/a.mp4",
    ],
)
def test_urls_that_are_not_plain_http_are_refused(url: str) -> None:
    """Only http and https URLs with a plain host are requested."""
    with pytest.raises(UrlRefused):
        POLICY.start(url)


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://a.example/", "https://[", "//"]))
def test_no_url_crashes_the_parser(text: str, start: str) -> None:
    """A URL from a response is parsed or refused, whatever it is."""
    try:
        address = parse_url(start + text)
    except UrlRefused:
        return
    assert address.scheme in ("http", "https")


def test_a_signed_url_is_not_changed() -> None:
    """A signature covers every byte, so nothing is decoded, sorted or encoded again."""
    url = "https://cdn.example.com/a%2Fb%7Ec.mp4?X-Sig=a%2Bb%3D&x=1+2&Y=%e4"

    assert url == str(parse_url(url))


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("/v.mp4?name=猫&sig=a%2Fb%2Bc%3D", "/v.mp4?name=%E7%8C%AB&sig=a%2Fb%2Bc%3D"),
        ("/my video.mp4", "/my%20video.mp4"),
        ("/a%2Fb/ü?x=1+2&y='()!", "/a%2Fb/%C3%BC?x=1+2&y='()!"),
        ("/v.mp4?sig=%zz%", "/v.mp4?sig=%zz%"),
        ("/a//c.mp4", "/a//c.mp4"),
    ],
)
async def test_only_what_no_request_can_have_is_encoded(url: str, sent: str, tmp_path: Path) -> None:
    """Spaces and characters outside ASCII are percent-encoded, at the start and in a redirect, and nothing else is touched."""
    async with (
        serving(video(VIDEO), redirect(url), video(VIDEO), redirect("PLACEHOLDER"), video(VIDEO)) as server,
        fetcher() as fetch,
    ):
        server.responses[3] = redirect(server.url(url))
        for start in (url, "/start", "/start"):
            await fetch.fetch(asset_request(server.url(start), tmp_path))

    assert [sent, "/start", sent, "/start", sent] == [request.path for request in server.requests]


def test_a_host_outside_ascii_gets_its_idna_form() -> None:
    """Its path is encoded, its name is not."""
    assert "https://xn--bcher-kva.example/%C3%BC.mp4" == str(parse_url("https://bücher.example/ü.mp4"))


async def test_a_location_of_9000_characters_is_followed(tmp_path: Path) -> None:
    """Signed addresses are long."""
    path = "/a.mp4?sig=" + "x" * 9000
    async with serving(redirect(path), video(VIDEO)) as server, fetcher() as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, Fetched)
    assert path == server.requests[1].path


@pytest.mark.parametrize(
    ("url", "sends_key"),
    [
        ("https://api.example.com/v1/videos/x/content", True),
        ("https://API.example.com:443/v1/videos/x/content", True),
        ("http://api.example.com/v1/videos/x/content", False),
        ("https://api.example.com:8443/a", False),
        ("https://cdn.api.example.com/a", False),
        ("https://api.example.com.evil.example/a", False),
    ],
)
def test_the_key_goes_to_the_origin_of_the_gateway_alone(url: str, sends_key: bool) -> None:
    """Scheme, host and port decide, not the field of the response that had the URL."""
    assert sends_key == POLICY.start(url).sends_key


def test_a_dropped_key_stays_dropped() -> None:
    """No host can redirect the key to a URL of its own choice."""
    start = POLICY.start("https://api.example.com/v1/videos/x/content")
    inside = POLICY.follow(start, "/elsewhere?x=1")
    outside = POLICY.follow(inside, "https://cdn.example.com/a.mp4")
    back = POLICY.follow(outside, "https://api.example.com/v1/anything")

    assert [True, True, False, False] == [hop.sends_key for hop in (start, inside, outside, back)]


def test_a_redirect_from_https_to_http_is_refused() -> None:
    """Nobody between can read or change the file."""
    with pytest.raises(UrlRefused, match="from https to http"):
        POLICY.follow(
            POLICY.start("https://cdn.example.com/a.mp4?sig=1"), "http://cdn.example.com/a.mp4?sig=1"
        )


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
def test_listed_hosts(url: str, is_refused: bool) -> None:
    """A name allows one host, a star all hosts below one, and the gateway is always allowed."""
    policy = UrlPolicy(POLICY.gateway, hosts=("CDN.example.com", "*.media.example"))

    if is_refused:
        with pytest.raises(UrlRefused, match=r"assets\.hosts"):
            policy.start(url)
    else:
        policy.start(url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "2130706433"]
)
async def test_inner_addresses_are_not_connected_to(host: str, tmp_path: Path) -> None:
    """A response of a public gateway can't make this machine read its own network."""
    resolver = FakeResolver(api_example_com="93.184.216.34")
    async with serving(video(VIDEO)) as server, fetcher(PUBLIC_GATEWAY, resolver=resolver) as fetch:
        result = await fetch.fetch(asset_request(server.url(host=host), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert [] == server.requests


async def test_a_name_with_an_inner_address_is_refused(tmp_path: Path) -> None:
    """The very address that is connected to is checked, so no later DNS response can change it."""
    resolver = FakeResolver(api_example_com="93.184.216.34", cdn_example_com="127.0.0.1")
    async with serving(video(VIDEO)) as server, fetcher(PUBLIC_GATEWAY, resolver=resolver) as fetch:
        result = await fetch.fetch(asset_request(server.url(host="cdn.example.com"), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert "has a loopback address" in result.failure.message
    assert [] == server.requests


async def test_addresses_of_the_gateways_scope_are_allowed(tmp_path: Path) -> None:
    """A gateway on this machine may have its files on this machine, under a name or a number."""
    resolver = FakeResolver(gateway_test="127.0.0.1", files_test="127.0.0.1", router_test="192.168.1.1")
    async with serving(video(VIDEO)) as server, fetcher("http://gateway.test", resolver=resolver) as fetch:
        near = await fetch.fetch(asset_request(server.url(host="files.test"), tmp_path))
        beyond = await fetch.fetch(asset_request(server.url(host="router.test"), tmp_path))

    assert isinstance(near, Fetched)
    assert isinstance(beyond, NotFetched)
    assert FetchFailure.REFUSED is beyond.reason


async def test_an_unknown_name_is_tried_again(tmp_path: Path) -> None:
    """A laptop that lost its network gets it back; nothing is given up at once."""
    async with fetcher(resolver=FakeResolver()) as fetch:
        result = await fetch.fetch(asset_request("http://cdn.example.com/a.mp4?sig=s3cret", tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.EXHAUSTED is result.reason
    assert (
        "no connection to http://cdn.example.com/a.mp4: its host name could not be resolved"
        == result.failure.message
    )


async def test_the_key_is_not_sent_to_another_origin(tmp_path: Path) -> None:
    """The gateway may redirect to a CDN; the CDN never gets the key."""
    async with serving(video(VIDEO)) as cdn, serving() as gateway:
        gateway.responses = [redirect("/inside"), redirect(cdn.url("/a.mp4?sig=1"), 307)]
        async with fetcher(gateway.url("")) as fetch:
            result = await fetch.fetch(asset_request(gateway.url("/content"), tmp_path))

    assert isinstance(result, Fetched)
    assert [f"Bearer {KEY}"] * 2 == [request.headers["authorization"] for request in gateway.requests]
    assert ["/a.mp4?sig=1"] == [request.path for request in cdn.requests]
    assert "authorization" not in cdn.requests[0].headers


@pytest.mark.parametrize(
    ("responses", "requests"),
    [
        ((redirect("/a.mp4"),) * 9, 6),
        ((redirect("file:///etc/passwd"),), 1),
        ((redirect("https://user@cdn.example.com/"),), 1),
        ((redirect("http://169.254.169.254/latest/meta-data/"),), 1),
    ],
    ids=["loop", "file", "user name", "cloud credentials"],
)
async def test_bad_redirects_are_refused(
    responses: tuple[Response, ...], requests: int, tmp_path: Path
) -> None:
    """Redirects are bounded, and each is checked by the same rules as the first URL."""
    async with serving(*responses) as server, fetcher() as fetch:
        result = await fetch.fetch(asset_request(server.url("/a.mp4?sig=s3cret"), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
    assert "s3cret" not in result.failure.message
    assert requests == len(server.requests)


async def test_listed_hosts_apply_to_redirects(tmp_path: Path) -> None:
    """A listed host can't redirect to one that is not."""
    rules = AssetRules(hosts=("127.0.0.1",))
    async with (
        serving(redirect("http://localhost:1/a.mp4")) as server,
        fetcher(LOOPBACK_GATEWAY, rules=rules) as fetch,
    ):
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert "assets.hosts" in result.failure.message
