"""The body of an answer on its way to the disk, through bounded memory and off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from hashlib import sha256
from io import BytesIO

from aiohttp import ClientResponse

from runner.assets.part import PartFile, refuse, write_whole
from runner.assets.wish import Fetched
from runner.core.model import AssetKind
from runner.media import Flawed, MediaFacts, Readable, read_mp4, read_picture

_LOT_BYTES = 256 << 10
"""How much gathers before a thread writes it. Two of these for each download at once is all the memory it takes."""


class TooLarge(Exception):
    """A body without a declared length grew past what is allowed."""


async def receive(
    response: ClientResponse, part: PartFile, threads: Executor, *, offset: int, max_bytes: int
) -> None:
    """
    Write a body to its part file while it comes.

    What came before an error or a cancellation is on disk when this returns, except for
    what the HTTP library had not handed out yet (some 200 KB, where the disk is slower
    than the network).

    Raises:
        TooLarge: The file would have more than `max_bytes`.
        OverlapMismatch: The body does not continue what is on disk.
        DiskFull, RunDirError: It can't be written.
        aiohttp.ClientError, TimeoutError, OSError: The network failed.
    """
    part.begin(offset)
    scribe = _Scribe(part, threads)
    lot: list[bytes] = []
    waiting, reached = 0, offset
    try:
        async for piece in response.content.iter_any():
            reached += len(piece)
            if reached > max_bytes:
                raise TooLarge
            lot.append(piece)
            waiting += len(piece)
            if waiting >= _LOT_BYTES:
                await scribe.hand_over(lot)
                lot, waiting = [], 0
    finally:
        if not scribe.is_torn:
            await scribe.hand_over(lot)
            await scribe.settle()


class _Scribe:
    """
    Has a thread write one lot while the next one gathers, and never two at once.

    Attributes:
        is_torn: Whether a lot was not written, or it is not known to be: none may follow it.
    """

    def __init__(self, part: PartFile, threads: Executor) -> None:
        self._part = part
        self._threads = threads
        self._pending: Future[None] | None = None
        self.is_torn = False

    async def hand_over(self, lot: list[bytes]) -> None:
        """Give a lot to a thread, as soon as the one before is written."""
        await self.settle()
        self._pending = self._threads.submit(self._part.append, lot)

    async def settle(self) -> None:
        """Wait until nothing is left to write. A cancellation does not end a write that has begun."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self.is_torn = True
        if not pending.done():
            await asyncio.shield(asyncio.wrap_future(pending))
        pending.result()
        self.is_torn = False


def keep_small(path: str, kind: AssetKind, body: bytes) -> Fetched:
    """
    Verify and write a body that is in memory.

    Raises:
        Flawed: It is not a whole asset of that kind; nothing was written.
        DiskFull, RunDirError: It can't be written.
    """
    facts = _read_facts(kind, BytesIO(body), len(body))
    write_whole(path, body)
    return Fetched(path, len(body), sha256(body).hexdigest(), facts)


def verify(part: PartFile, kind: AssetKind) -> Fetched:
    """
    Verify a part file that should be whole. It blocks for as long as a look at the file takes.

    Raises:
        Flawed: It is not a whole asset of that kind.
        DiskFull, RunDirError: It can't be read.
    """
    digest = part.digest()
    part.close()
    try:
        with open(part.path, "rb") as file:
            return Fetched(part.path, part.size, digest, _read_facts(kind, file, part.size))
    except OSError as error:
        refuse(error, part.path)


def _read_facts(kind: AssetKind, file: Readable, size: int) -> MediaFacts:
    if not size:
        raise Flawed("is empty")
    return read_mp4(file, size) if kind is AssetKind.VIDEO else read_picture(file, size)
