"""Downloads through a proxy: by the rule of every request, and to public hosts only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from runner.assets.request import Fetched, FetchFailure, NotFetched
from runner.connector import Proxies
from runner.core.settings import RetryPolicy
from tests.assets.helpers import KEY, asset_request, fetcher
from tests.assets.test_url_policy import FakeResolver
from tests.media.samples import mp4

VIDEO = mp4(1_000)
GATEWAY = "https://api.example.com"


class ForwardProxy:
    """Answers requests in absolute form with a video, and refuses tunnels."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if head.startswith("CONNECT"):
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            else:
                start = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n"
                writer.write(start % len(VIDEO) + VIDEO)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy()
    listener = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    # A name: proxies are on private addresses, which no asset may be on.
    proxy.url = f"http://localhost:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()


async def download(
    proxy: ForwardProxy, url: str, folder: Path, *, base_url: str = GATEWAY
) -> Fetched | NotFetched:
    """Download through a proxy, on a machine that does not resolve the gateway's name."""
    proxies = Proxies.from_environ(
        {"HTTP_PROXY": proxy.url, "https_proxy": proxy.url, "NO_PROXY": "direct.example,inner.example"}
    )
    retry, resolver = RetryPolicy(attempts=1), FakeResolver(inner_example="10.0.0.1")
    async with fetcher(base_url, proxies=proxies, resolver=resolver, retry=retry) as fetch:
        return await fetch.fetch(asset_request(url, folder))


async def test_a_download_goes_through_the_proxy(tmp_path: Path) -> None:
    """The proxy gets the whole address, resolves its host, and never gets the key for another host."""
    async with forward_proxy() as proxy:
        result = await download(proxy, "http://cdn.example.com/a.mp4?sig=a%2Fb", tmp_path)

    assert isinstance(result, Fetched), result
    assert proxy.heads[0].startswith("GET http://cdn.example.com/a.mp4?sig=a%2Fb HTTP/1.1\r\n")
    assert KEY not in proxy.heads[0]


async def test_the_gateways_own_copy_goes_through_the_proxy(tmp_path: Path) -> None:
    """The content route has the proxy that POSTs and polls have, and gets the key."""
    async with forward_proxy() as proxy:
        url = "http://api.example.com/v1/videos/task_1/content"
        result = await download(proxy, url, tmp_path, base_url="http://api.example.com")

    assert isinstance(result, Fetched)
    assert f"Authorization: Bearer {KEY}" in proxy.heads[0]


async def test_https_is_tunneled(tmp_path: Path) -> None:
    """For https the proxy is asked for a connection, and learns the host alone."""
    async with forward_proxy() as proxy:
        result = await download(proxy, "https://cdn.example.com/a.mp4?sig=secret", tmp_path)

    assert isinstance(result, NotFetched)
    assert proxy.heads[0].startswith("CONNECT cdn.example.com:443 ")
    assert "the proxy refused the connection" in result.failure.message
    assert "secret" not in proxy.heads[0] + result.failure.message


async def test_excluded_hosts_are_connected_to_directly(tmp_path: Path) -> None:
    """`NO_PROXY` holds for downloads too."""
    async with forward_proxy() as proxy:
        result = await download(proxy, "http://direct.example/a.mp4", tmp_path)

    assert [] == proxy.heads
    assert isinstance(result, NotFetched)
    assert "could not be resolved" in result.failure.message


@pytest.mark.parametrize(
    "host",
    ["192.168.1.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[::10.0.0.1]", "metadata.google.internal", "db"],
)
async def test_private_hosts_are_refused_through_a_proxy(host: str, tmp_path: Path) -> None:
    """A proxy may be inside the network that assets must not be on, so names and literal addresses are checked."""
    async with forward_proxy() as proxy:
        result = await download(proxy, f"http://{host}/a.mp4", tmp_path)

    assert [] == proxy.heads
    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "inner.example"])
async def test_private_hosts_beside_a_proxy_are_refused(host: str, tmp_path: Path) -> None:
    """Where the proxy resolves the gateway's name, hosts that are connected to directly are compared with a public one."""
    async with forward_proxy() as proxy:
        result = await download(proxy, f"http://{host}:9/a.mp4", tmp_path)

    assert [] == proxy.heads
    assert isinstance(result, NotFetched)
    assert FetchFailure.REFUSED is result.reason
