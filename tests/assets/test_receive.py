"""Bodies on their way from a connection to the disk: what happens to connections, memory and time-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import aiohttp
import pytest

from runner.assets.part_file import PartFile
from runner.assets.receive import BATCH_BYTES, TooLarge, receive
from runner.assets.request import Fetched, NotFetched
from runner.connector import StrictConnector
from runner.core.settings import Timeouts
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import Server, serving, video
from tests.media.samples import mp4

LARGE = mp4(3_000_000)
STALL_S = 0.05
READ_BUFFER_BYTES = 16 << 10


class CountingServer(Server):
    """Counts its connections."""

    connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super().handle(reader, writer)


class SlowDisk(Executor):
    """
    A writer thread that takes a while for each batch.

    Attributes:
        batches: The size of each batch, in bytes.
        most_writes: The most batches that were written at once.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.batches: list[int] = []
        self.most_writes = 0
        self.is_idle = asyncio.Event()
        self._writes = 0
        self._delay_s = delay_s

    def submit(self, fn: Callable, batch: list[bytes]) -> Future:  # type: ignore[override, type-arg]
        self.batches.append(sum(map(len, batch)))
        self._writes += 1
        self.most_writes = max(self.most_writes, self._writes)
        self.is_idle.clear()
        written: Future[None] = Future()
        written.set_running_or_notify_cancel()
        asyncio.get_running_loop().call_later(self._delay_s, self._write, fn, batch, written)
        return written

    def _write(self, fn: Callable[[list[bytes]], None], batch: list[bytes], written: Future[None]) -> None:
        fn(batch)
        written.set_result(None)
        self._writes -= 1
        if not self._writes:
            self.is_idle.set()


async def receive_from(server: Server, folder: Path, disk: SlowDisk, max_bytes: int = 10_000_000) -> Path:
    part = PartFile(f"{folder}/a.mp4.part")
    timeouts = Timeouts(stall_s=STALL_S)
    async with (
        aiohttp.ClientSession(read_bufsize=READ_BUFFER_BYTES) as session,
        session.get(server.url()) as response,
    ):
        try:
            await receive(
                response,
                part,
                disk,
                offset=0,
                max_bytes=max_bytes,
                timeouts=timeouts,
                check_space=lambda: None,
            )
        finally:
            await disk.is_idle.wait()
            part.close()
    return Path(part.path)


async def test_memory_is_bounded_while_the_disk_is_slow(tmp_path: Path) -> None:
    """
    No more than a batch is gathered beside the one that is written, however slow the disk is.
    """
    disk = SlowDisk()
    async with serving(video(LARGE)) as server:
        part = await receive_from(server, tmp_path, disk)

    assert LARGE == part.read_bytes()
    assert 1 == disk.most_writes
    assert max(disk.batches) <= BATCH_BYTES + 2 * READ_BUFFER_BYTES + (256 << 10)


async def test_a_slow_disk_is_not_a_stall(tmp_path: Path) -> None:
    """
    A connection that is not read from because the disk is slow has not stalled, though nothing arrives for longer.
    """
    disk = SlowDisk(delay_s=3 * STALL_S)
    async with serving(video(LARGE[: 4 * BATCH_BYTES])) as server:
        part = await receive_from(server, tmp_path, disk)

    assert 4 * BATCH_BYTES == part.stat().st_size
    assert len(disk.batches) > 1


async def test_a_cancellation_ends_with_the_batch_that_is_written(tmp_path: Path) -> None:
    """
    A batch that is being written is written completely, and nothing after it, which might not continue it.
    """
    disk = SlowDisk(delay_s=STALL_S)
    async with serving(video(LARGE)) as server:
        receiving = asyncio.create_task(receive_from(server, tmp_path, disk))
        async with asyncio.timeout(5):
            while not disk.batches:  # noqa: ASYNC110
                await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    (size,) = disk.batches
    assert LARGE[:size] == (tmp_path / "a.mp4.part").read_bytes()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_past_the_limit_ends(chunked: bool, tmp_path: Path) -> None:
    """
    A body that grows past what is allowed is read no further.
    """
    disk = SlowDisk()
    async with serving(video(LARGE, chunked=chunked)) as server:
        with pytest.raises(TooLarge):
            await receive_from(server, tmp_path, disk, max_bytes=1_000_000)

    assert sum(disk.batches) <= 1_000_000


async def test_a_connection_serves_one_large_body_after_the_other(tmp_path: Path) -> None:
    """
    With the last byte of a body its connection is free, so that the next file needs no new handshake.
    """
    server = CountingServer([video(LARGE)] * 3)
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listener, fetcher() as fetch:
        server.port = listener.sockets[0].getsockname()[1]
        results = [await fetch.fetch(asset_request(server.url(), tmp_path / str(n))) for n in range(3)]

        listener.close()

    assert 1 == server.connections
    for result in results:
        assert isinstance(result, Fetched)
        assert LARGE == Path(result.part_path).read_bytes()


async def test_a_pause_at_the_last_chunk_that_arrived_ends_with_the_body() -> None:
    """
    A body of very many small chunks is paused for their number; that the parser stays paused behind the next data
    holds up nothing.
    """
    body, was_read, size = mp4(5_000), asyncio.Event(), READ_BUFFER_BYTES // 16 + 1

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        chunks = [b"1\r\n%c\r\n" % byte for byte in body[:size]]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks))
        await was_read.wait()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - size, body[size:]))
        writer.close()

    connector = StrictConnector(keepalive_s=15, resolver=aiohttp.ThreadedResolver())
    async with (
        asyncio.timeout(10),
        await asyncio.start_server(respond, "127.0.0.1", 0) as listener,
        aiohttp.ClientSession(connector=connector, read_bufsize=READ_BUFFER_BYTES) as session,
        session.get(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/") as response,
    ):
        received = await response.content.readexactly(size)
        was_read.set()
        received += await response.content.read()

    assert body == received


async def test_bytes_after_the_declared_length_are_ignored(tmp_path: Path) -> None:
    """
    A server that sends more than it declared gives the file that it declared, and spoils no later request.
    """
    too_long = video(LARGE + b"and more", length=str(len(LARGE)))
    async with serving(too_long, video(LARGE)) as server, fetcher() as fetch:
        results = [await fetch.fetch(asset_request(server.url(), tmp_path / str(n))) for n in range(2)]

    for result in results:
        assert isinstance(result, Fetched)
        assert LARGE == Path(result.part_path).read_bytes()


async def test_a_stalled_download_ends_and_keeps_what_was_received(tmp_path: Path) -> None:
    """
    A body that stops arriving fails after the stall time-out, and its beginning stays on disk.
    """
    async with serving() as server, fetcher(timeouts=Timeouts(stall_s=STALL_S)) as fetch:
        server.default_response = video(LARGE, stall_after=1_000_000)
        async with asyncio.timeout(5):
            result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert f"no data from {server.url()} for 50ms" == result.failure.message
    assert 1_000_000 == (tmp_path / "assets" / "sky.mp4.part").stat().st_size
