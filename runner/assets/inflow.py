"""
A body of declared length, straight from its connection into buffers that threads write from.

aiohttp copies each piece of a body twice into fresh memory before it hands it out,
and stops and resumes the connection around each. With the head read and the length
declared there is nothing left to parse, so the connection is lent to a protocol that
receives into buffers which are used again and again; with the last byte aiohttp has
it back, ready for the next request. Everything used for that is public in asyncio
and aiohttp, and the same for TLS and on every event loop.

Measured for assets of 200 MB on loopback: 0.34 s of CPU each instead of 0.45, of which
the digest is 0.15.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import aiohttp

Lot = Sequence[bytes | memoryview]
"""What a thread writes in one go, in order."""

LOT_BYTES = 256 << 10
"""How much gathers before a thread writes it: a change of threads costs as much as writing some 100 KB."""
LARGE_LOT_BYTES = 1 << 20
"""The same for large bodies while few are under way. A kill loses what gathers, which is little only beside these."""
_LARGE_BODY_BYTES = 32 << 20
_SHARED_BYTES = 8 << 20
"""While less than this is lent, a download may have a large buffer, and a second one to fill while its first is written."""


class Buffers:
    """Lends all downloads their buffers: what they wish as long as few are lent, and always a small one to each."""

    def __init__(self) -> None:
        self._free: dict[int, list[bytearray]] = {LOT_BYTES: [], LARGE_LOT_BYTES: []}
        self._lent_bytes = 0

    def borrow(self, wished: int) -> bytearray:
        """Give a download the one buffer that it must have, of the wished size or a small one."""
        return self.borrow_spare(wished) or self._lend(LOT_BYTES)

    def borrow_spare(self, wished: int) -> bytearray | None:
        """Give a second buffer, where memory allows for it."""
        return self._lend(wished) if self._lent_bytes + wished <= _SHARED_BYTES else None

    def take_back(self, buffer: bytearray) -> None:
        """Keep a buffer that nobody uses any more, for the next: a fresh one costs a page fault for every 4 KiB."""
        self._lent_bytes -= len(buffer)
        self._free[len(buffer)].append(buffer)

    def write_off(self, size: int) -> None:
        """Forget buffers of so many bytes, which a thread may still be reading from."""
        self._lent_bytes -= size

    def _lend(self, size: int) -> bytearray:
        self._lent_bytes += size
        free = self._free[size]
        return free.pop() if free else bytearray(size)


class Inflow(asyncio.BufferedProtocol):
    """
    Receives the body of one answer.

    While every buffer is full or being written, the connection is not read from.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, length: int, buffers: Buffers, *, stall_s: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._left = self._left_before = length
        self._buffers = buffers
        self._wished = LARGE_LOT_BYTES if length >= _LARGE_BODY_BYTES else LOT_BYTES
        self._stall_s = stall_s
        self._gathered: list[bytes | memoryview] = []
        self._full: deque[Lot] = deque()
        self._buffer: bytearray | None = None
        self._filled = self._held_bytes = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        content, connection = self._response.content, self._response.connection
        while piece := content.read_nowait():
            self._gathered.append(piece)
            self._left -= len(piece)
        if not self._left:
            self._close_lot()
            return
        if connection is None or connection.protocol is None or connection.transport is None:
            raise aiohttp.ClientPayloadError
        self._handler, self._transport = connection.protocol, connection.transport
        self._use(self._buffers.borrow(self._wished))
        # This ends aiohttp's own watch over stalls too.
        self._handler.pause_reading()
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        self._watch = self._loop.call_later(self._stall_s, self._check_progress)

    async def next_lot(self) -> Lot | None:
        """
        Wait for the next lot; None at the end of the body.

        Raises:
            TimeoutError: Nothing came for `stall_s` or up to twice as long.
            aiohttp.ClientPayloadError: The connection broke.
        """
        while not self._full:
            if self._error is not None:
                raise self._error
            if not self._left:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._full.popleft()

    def written(self, lot: Lot) -> None:
        """Use the buffer of a lot again."""
        buffer = lot[-1].obj if isinstance(lot[-1], memoryview) else None
        if not isinstance(buffer, bytearray):
            return
        if self._left and self._buffer is None and self._error is None:
            self._buffer = buffer
            self._transport.resume_reading()
        else:
            self._held_bytes -= len(buffer)
            self._buffers.take_back(buffer)

    def stop(self) -> Lot:
        """End receiving, and give what has come and was not handed out."""
        if self._watch is not None:
            self._watch.cancel()
        if self._left and self._error is None and not self._transport.is_closing():
            # What comes from now on is for nobody: aiohttp closes a connection in the middle of a body.
            self._transport.pause_reading()
            self._transport.set_protocol(self._handler)
        if self._filled:
            self._gather()
        self._close_lot()
        self._buffers.write_off(self._held_bytes)
        return [piece for lot in self._full for piece in lot]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes belong: never more than the body has, since the rest is not of it."""
        assert self._buffer is not None
        return memoryview(self._buffer)[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that came."""
        self._filled += nbytes
        self._left -= nbytes
        size = len(self._buffer or b"")
        if self._left and self._filled < size:
            return
        self._gather()
        self._close_lot()
        if not self._left:
            self._give_connection_back()
        elif self._held_bytes == size and (spare := self._buffers.borrow_spare(self._wished)) is not None:
            self._use(spare)
        else:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more will come, as aiohttp would."""
        self._handler.connection_lost(exc)
        self._fail(aiohttp.ClientPayloadError())

    def _use(self, buffer: bytearray) -> None:
        self._held_bytes += len(buffer)
        self._buffer = buffer

    def _gather(self) -> None:
        assert self._buffer is not None
        self._gathered.append(memoryview(self._buffer)[: self._filled])
        self._buffer, self._filled = None, 0

    def _close_lot(self) -> None:
        self._full.append(self._gathered)
        self._gathered = []

    def _give_connection_back(self) -> None:
        self._transport.set_protocol(self._handler)
        # This makes the connection free for the next request, and ends the answer.
        self._response.content.feed_eof()

    def _check_progress(self) -> None:
        # A connection that is not read from, because the disk is slow, has not stalled.
        if self._buffer is not None and self._left == self._left_before:
            self._fail(TimeoutError())
            return
        self._left_before = self._left
        self._watch = self._loop.call_later(self._stall_s, self._check_progress)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
