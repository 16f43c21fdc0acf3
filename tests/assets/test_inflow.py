"""Bodies that go straight from their connection to the disk: what becomes of connections and of memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runner.assets.inflow import LARGE_LOT_BYTES, LOT_BYTES, Buffers
from runner.assets.request import Fetched, NotFetched
from runner.core.settings import Timeouts
from tests.assets.helpers import fetcher, wish
from tests.assets.server import Server, file, serving
from tests.media.samples import mp4

LARGE = mp4(3_000_000)


class Counting(Server):
    """Counts its connections."""

    connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super().handle(reader, writer)


async def test_a_connection_serves_one_large_body_after_the_other(tmp_path: Path) -> None:
    """With its last byte a body gives its connection back, so that the next file needs no new handshake."""
    server = Counting([file(LARGE)] * 3)
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listener, fetcher() as fetch:
        server.port = listener.sockets[0].getsockname()[1]
        results = [await fetch.fetch(wish(server.url(), tmp_path / str(n))) for n in range(3)]

        listener.close()

    assert 1 == server.connections
    for result in results:
        assert isinstance(result, Fetched)
        assert LARGE == Path(result.part_path).read_bytes()


async def test_bytes_behind_the_end_of_a_body_are_not_of_it(tmp_path: Path) -> None:
    """A server that sends more than it declared gives the file that it declared, and spoils no later request."""
    chatty = file(LARGE + b"and more", length=str(len(LARGE)))
    async with serving(chatty, file(LARGE)) as server, fetcher() as fetch:
        results = [await fetch.fetch(wish(server.url(), tmp_path / str(n))) for n in range(2)]

    for result in results:
        assert isinstance(result, Fetched)
        assert LARGE == Path(result.part_path).read_bytes()


async def test_a_server_that_goes_silent_is_given_up(tmp_path: Path) -> None:
    """A body that stops coming fails after the stall time or twice that, and what came stays on disk."""
    async with serving() as server, fetcher(timeouts=Timeouts(stall_s=0.05)) as fetch:
        server.last = file(LARGE, stall=1_000_000)
        async with asyncio.timeout(5):
            result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert " 0.05 s" in result.failure.message
    assert 1_000_000 == (tmp_path / "assets" / "sky.mp4.part").stat().st_size


def test_few_downloads_get_large_buffers_and_many_get_small_ones() -> None:
    """Memory stays bounded however many downloads there are, and none is left without a buffer."""
    buffers = Buffers()

    lent = [buffers.borrow(LARGE_LOT_BYTES) for _ in range(64)]

    assert [LARGE_LOT_BYTES] * 8 + [LOT_BYTES] * 56 == [len(buffer) for buffer in lent]
    assert buffers.borrow_spare(LOT_BYTES) is None


def test_buffers_are_used_again() -> None:
    """What comes back is lent again before memory is asked for more."""
    buffers = Buffers()
    buffer = buffers.borrow(LOT_BYTES)

    buffers.take_back(buffer)

    assert buffer is buffers.borrow(LOT_BYTES)
