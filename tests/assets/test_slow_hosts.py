"""Every wait of a download for the network has an end, whatever the host sends, and however slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from runner.assets.part_file import PartFile
from runner.assets.receive import TooSlow, arriving, receive
from runner.assets.request import FetchFailure, NotFetched
from runner.core.settings import RetryPolicy, Timeouts
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import Response, serving, video
from tests.engine.virtual_time import run_virtually
from tests.gateway.raw_server import run_event_loop
from tests.media.samples import mp4

LARGE = mp4(600_000)
DEFAULTS = Timeouts()


class TimedBody:
    """A response whose body comes as pieces of a size, each after a pause; without end."""

    def __init__(self, piece_bytes: int, pause_s: float) -> None:
        self.content = self
        self._piece = bytes(piece_bytes)
        self._pause_s = pause_s

    def read_nowait(self, n: int) -> bytes:
        return b""

    def at_eof(self) -> bool:
        return False

    async def readany(self) -> bytes:
        await asyncio.sleep(self._pause_s)
        return self._piece


def take(body: TimedBody, timeouts: Timeouts, most_s: float = 7200.0) -> tuple[int, float, str]:
    """Receive for some virtual time; return the bytes, when it ended, and how."""

    async def main(loop: asyncio.AbstractEventLoop) -> tuple[int, float, str]:
        received = 0
        try:
            async with asyncio.timeout(most_s):
                async for chunk in arriving(body, timeouts):  # type: ignore[arg-type]
                    received += len(chunk)
        except (TooSlow, aiohttp.ClientError, TimeoutError) as error:
            return received, loop.time(), type(error).__name__
        return received, loop.time(), ""

    return run_virtually(main)


@pytest.mark.parametrize(
    ("piece_bytes", "pause_s", "ended_s", "how"),
    [
        (200, 1.0, 60.0, "TooSlow"),
        (10, 0.5, 60.0, "TooSlow"),
        (1, 50.0, 60.0, "TooSlow"),
        (9_000, 1.0, 60.0, "TooSlow"),
        (1_000_000, 61.0, 60.0, "SocketTimeoutError"),
        (11_000, 1.0, 7200.0, "TimeoutError"),
        (600_000, 59.0, 7200.0, "TimeoutError"),
    ],
)
def test_a_body_must_bring_the_least_speed(
    piece_bytes: int, pause_s: float, ended_s: float, how: str
) -> None:
    """Less than 10 kB/s over a minute ends a try, and so does a minute without a byte; more never does."""
    _, at, kind = take(TimedBody(piece_bytes, pause_s), DEFAULTS)

    assert how == kind
    assert ended_s == pytest.approx(at, abs=1.1)


def test_without_a_least_speed_only_a_stall_ends_a_body() -> None:
    """`least_speed: 0kB/s` switches the limit off."""
    _, at, kind = take(TimedBody(1, 50.0), Timeouts(least_bytes_per_s=0.0))

    assert ("TimeoutError", 7200.0) == (kind, at)


async def test_a_slow_download_is_on_disk_after_seconds(tmp_path: Path) -> None:
    """What trickles in is written though it fills no batch, so that a kill loses little."""
    body = TimedBody(1000, 1.0)

    async def main(loop: asyncio.AbstractEventLoop) -> int:
        part = PartFile(f"{tmp_path}/a.mp4.part")
        arguments: dict[str, Any] = {
            "offset": 0,
            "max_bytes": 10**9,
            "timeouts": Timeouts(least_bytes_per_s=0.0),
            "check_space": lambda: None,
        }
        task = asyncio.ensure_future(receive(body, part, InlineExecutor(), **arguments))  # type: ignore[arg-type]
        await asyncio.sleep(20.5)
        size = Path(part.path).stat().st_size
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        part.close()
        return size

    assert 15_000 <= await asyncio.to_thread(run_virtually, main)


class InlineExecutor:
    """Does at once what it is given."""

    def submit(self, function: Any, *arguments: Any) -> Any:
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


@asynccontextmanager
async def trickling(pieces: Iterable[bytes], pause_s: float) -> AsyncIterator[str]:
    """Serve raw bytes to each request, again and again, with a pause after each piece."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/a.mp4"
    finally:
        listener.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "pieces",
    [[b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 2000], [b"HTTP/1.1 102 Processing\r\n\r\n"] * 2000],
    ids=["a head that trickles", "102 without end"],
)
async def test_a_head_must_come_in_time(pieces: list[bytes], tmp_path: Path) -> None:
    """Bytes that are not part of a body keep no download alive."""
    timeouts = Timeouts(connect_s=0.1, stall_s=0.2)
    async with (
        asyncio.timeout(10),
        trickling(pieces, 0.02) as url,
        fetcher(timeouts=timeouts, retry=RetryPolicy(attempts=2)) as fetch,
    ):
        result = await fetch.fetch(asset_request(url, tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.EXHAUSTED is result.reason


async def test_a_body_without_length_leaves_the_reserve_free(tmp_path: Path) -> None:
    """A body without end is its job's trouble: it is given up before the disk is full, and its part is deleted."""
    free = iter([10**12, *[0] * 100])
    async with (
        serving(video(mp4(40_000_000), chunked=True)) as server,
        fetcher(
            free_bytes=lambda folder: next(free), rules=SimpleNamespace(max_bytes=10**9, hosts=None)
        ) as fetch,
    ):
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert "without declaring a length, and there is no space" in result.failure.message
    assert [] == list((tmp_path / "assets").iterdir())


async def test_a_host_that_sends_a_file_twice_gives_nobody_elses(tmp_path: Path) -> None:
    """Bytes that come behind a response are not taken for the response to the next request on the connection."""
    contents = {f"/{n}": mp4(1000 + n) for n in range(4)}
    is_stored, was_sent = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                body = contents[path]
                answer = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n%b"
                writer.write(answer % (len(body), body))
                await is_stored.wait()
                is_stored.clear()
                writer.write(answer % (len(body), body))
                was_sent.set()
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with fetcher() as fetch:
        for n in range(4):
            (tmp_path / str(n)).mkdir()
            result = await fetch.fetch(asset_request(f"http://127.0.0.1:{port}/{n}", tmp_path / str(n)))
            is_stored.set()
            await was_sent.wait()
            was_sent.clear()
            await run_event_loop()
            assert not isinstance(result, NotFetched)
            assert contents[f"/{n}"] == Path(result.part_path).read_bytes()
    listener.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "xn--" + "a" * 70, "[]@"])
async def test_hosts_that_the_libraries_choke_on_are_refused(host: str, tmp_path: Path) -> None:
    """They are an address that is not allowed, at the start and in a redirect, and no bug."""
    async with serving() as server, fetcher() as fetch:
        server.default_response = Response(302, headers={"Location": f"http://{host}/a.mp4"})
        results = [
            await fetch.fetch(asset_request(url, tmp_path)) for url in (server.url(), f"http://{host}/a.mp4")
        ]

    assert [FetchFailure.REFUSED] * 2 == [
        result.reason for result in results if isinstance(result, NotFetched)
    ]
