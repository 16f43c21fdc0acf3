"""Faults of assets: downloads that end early, files that are not what they should be, addresses that expire or lead elsewhere."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import aiohttp
import pytest

from tests.simulator.simulator_client import KEY, SEEDANCE, Response, start_simulator


async def fetch_twice(fault: str, **headers: str) -> tuple[Response, Response]:
    """Fetch an asset with a fault, and once more."""
    async with start_simulator(f"rules: [{{asset: {fault}}}]") as client:
        url = await client.video_url()
        return await client.fetch(url, **headers), await client.fetch(url, **headers)


@pytest.mark.parametrize(
    "fault", ["{fault: truncated, at: 0.3}", "{fault: stall, for_s: 0}", "wrong_length", "reset"]
)
async def test_a_download_may_end_early(fault: str) -> None:
    """Fewer bytes arrive than were declared; the next download is complete."""
    async with start_simulator(f"rules: [{{asset: {fault}}}]") as client:
        url = await client.video_url()
        with pytest.raises(aiohttp.ClientError):
            await client.fetch(url)

        assert 200 == (await client.fetch(url)).status


async def test_a_truncated_download_has_the_given_share() -> None:
    """The ledger shows how much was sent."""
    async with start_simulator("rules: [{asset: {fault: truncated, at: 0.5}}]") as client:
        url = await client.video_url()
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.fetch(url)
        half = client.simulator.ledger.bytes_served.total()
        whole = len((await client.fetch(url)).body)

    assert whole // 2 == half


async def test_a_short_file_looks_complete() -> None:
    """Its Content-Length is that of the short file, so only the MP4 structure reveals it."""
    short, whole = await fetch_twice("{fault: short_file, at: 0.5}")

    assert len(whole.body) // 2 == len(short.body) == int(short.headers["Content-Length"])


async def test_a_file_may_have_no_moov() -> None:
    """Its length is right, but it can't be played."""
    bare, whole = await fetch_twice("no_moov")

    assert (False, True) == (b"moov" in bare.body, b"moov" in whole.body)


async def test_a_file_may_be_compressed_or_without_a_length() -> None:
    """One has Content-Encoding: gzip, the other is chunked."""
    compressed, whole = await fetch_twice("[gzip]")
    chunked, _ = await fetch_twice("no_length")

    assert "gzip" == compressed.headers["Content-Encoding"]
    assert whole.body == gzip.decompress(compressed.body)
    assert "Content-Length" not in chunked.headers
    assert b"ftyp" == chunked.body[4:8]


async def test_a_file_may_be_sent_slowly() -> None:
    """No faster than the scenario says, and complete in the end."""
    rule = "{task: {asset_bytes: 50000}, asset: {fault: slow, bytes_per_s: 100000}}"
    async with start_simulator(f"rules: [{rule}]") as client:
        url = await client.video_url()
        loop = asyncio.get_running_loop()
        started = loop.time()
        body = (await client.fetch(url)).body

        assert len(body) / (loop.time() - started) < 200_000
        assert 50_000 == len(body)


async def test_a_terabyte_may_be_declared() -> None:
    """Only the file itself is sent."""
    async with start_simulator("rules: [{asset: huge_length}]") as client:
        url = await client.video_url()
        async with client.session.get(url) as response:
            assert "1000000000000" == response.headers["Content-Length"]
            assert b"ftyp" == (await response.content.readexactly(8))[4:]


async def test_ranges_may_be_ignored_or_refused_and_etags_may_change() -> None:
    """200 with the whole file, 416, and another ETag each time."""
    ignored, fine = await fetch_twice("range_ignored", Range="bytes=10-")
    refused, _ = await fetch_twice("range_refused", Range="bytes=10-")
    one, two = await fetch_twice("{fault: etag_changed, times: 2}")

    assert (200, 206) == (ignored.status, fine.status)
    assert 416 == refused.status
    assert one.headers["ETag"] != two.headers["ETag"]


async def test_a_url_may_be_expired_until_the_next_poll() -> None:
    """All URLs that were issued before get 403; a poll returns one that works."""
    async with start_simulator("rules: [{asset: expired_url}]") as client:
        url = await client.video_url()
        refused = [(await client.fetch(url)).status for _ in range(2)]
        fresh = (await client.poll(client.simulator.ledger.accepted[0].task_id)).json["video_url"]

        assert [403, 403] == refused
        assert 200 == (await client.fetch(fresh)).status


async def test_an_asset_may_be_redirected() -> None:
    """One redirect leads to another origin, which has the asset; the other leads to itself."""
    async with start_simulator("rules: [{asset: [redirect, redirect_loop]}]") as client:
        url = await client.video_url()
        away, loop = await client.fetch(url), await client.fetch(url)
        there = await client.fetch(away.headers["Location"])

    assert (302, 302, 200) == (away.status, loop.status, there.status)
    assert away.headers["Location"].split("/")[2] != url.split("/")[2]
    assert url.endswith(loop.headers["Location"])


@pytest.mark.parametrize(
    ("task", "expected"),
    [("url: gateway", "/v1/videos/task_"), ("url: nowhere", None), ("shape: ark", "127.0.0.1")],
)
async def test_the_url_may_be_on_the_gateway_or_absent(task: str, expected: str | None) -> None:
    """On the API's origin the URL needs the key; without a URL, the content route still has the video."""
    async with start_simulator(f"rules: [{{task: {{{task}}}}}]") as client:
        task_id = await client.accepted()
        client.clock.now += 100
        body = (await client.poll(task_id)).json
        url: Any = body.get("video_url") or body.get("content", {}).get("video_url")
        content = await client.request("GET", f"/v1/videos/{task_id}/content")

        assert (expected or "None") in str(url)
        assert 200 == content.status
        if "gateway" in task:
            assert (401, 200) == ((await client.fetch(url)).status, (await client.fetch(url, **KEY)).status)


async def test_assets_may_be_of_any_size_and_order() -> None:
    """A video is padded to the given size, with mdat before moov."""
    async with start_simulator("rules: [{task: {asset_bytes: 1000000, moov_first: false}}]") as client:
        body = (await client.fetch(await client.video_url())).body

    assert 1_000_000 == len(body)
    assert body.index(b"mdat") < body.index(b"moov")


async def test_a_last_frame_may_be_missing() -> None:
    """The request asks for it, and the answer has no URL."""
    async with start_simulator("rules: [{task: {last_frame: false}}]") as client:
        task_id = await client.accepted({**SEEDANCE, "return_last_frame": True})
        client.clock.now += 100
        body = (await client.poll(task_id)).json

    assert (True, False) == ("video_url" in body, "last_frame_url" in body)
