"""The body of an answer on its way to the disk, through bounded memory and off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from hashlib import sha256
from io import BytesIO

from aiohttp import ClientResponse

from runner.assets.inflow import LOT_BYTES, Buffers, Inflow, Lot
from runner.assets.part_file import PartFile, write_whole
from runner.assets.request import Fetched
from runner.core.model import AssetKind
from runner.disk import write_error
from runner.media import InvalidMedia, MediaFacts, Readable, read_mp4, read_picture


class TooLarge(Exception):
    """A body without a declared length grew past what is allowed."""


async def receive(
    response: ClientResponse,
    part: PartFile,
    threads: Executor,
    buffers: Buffers,
    *,
    offset: int,
    max_bytes: int,
    stall_s: float,
) -> None:
    """
    Write a body to its part file while it comes.

    What came before an error is on disk when this returns. A cancellation while a lot is
    written may lose the one that gathered meanwhile, since none may follow a torn one.

    Raises:
        TooLarge: The file would have more than `max_bytes`.
        OverlapMismatch: The body does not continue what is on disk.
        DiskFull, RunDirError: It can't be written.
        aiohttp.ClientError, TimeoutError, OSError: The network failed.
    """
    part.begin(offset)
    length = _plain_length(response)
    if length is not None and offset + length > max_bytes:
        raise TooLarge
    source = (
        _Pieces(response, max_bytes - offset)
        if length is None
        else Inflow(response, length, buffers, stall_s=stall_s)
    )
    is_torn = False
    try:
        while (lot := await source.next_lot()) is not None:
            # Until a lot is known to be written, none may follow it. Another gathers meanwhile.
            is_torn = True
            await _write(part, lot, threads)
            is_torn = False
            source.written(lot)
    finally:
        rest = source.stop()
        if rest and not is_torn:
            await _write(part, rest, threads)


def _plain_length(response: ClientResponse) -> int | None:
    """Say how many bytes follow the head, and are the body as it is; None where that is for a parser to find out."""
    return None if "Transfer-Encoding" in response.headers else response.content_length


async def _write(part: PartFile, lot: Lot, threads: Executor) -> None:
    """Have a thread write a lot. A cancellation does not end a write that has begun."""
    await asyncio.shield(asyncio.wrap_future(threads.submit(part.append, lot)))


class _Pieces:
    """Gathers the lots of a body whose length only its end tells."""

    def __init__(self, response: ClientResponse, max_bytes: int) -> None:
        self._content = response.content
        self._left = max_bytes
        self._gathered: list[bytes] = []

    async def next_lot(self) -> Lot | None:
        """
        Wait for the next lot; None at the end of the body.

        Raises:
            TooLarge: There is more than `max_bytes` of it.
        """
        size = 0
        while size < LOT_BYTES and (piece := await self._content.readany()):
            size += len(piece)
            self._left -= len(piece)
            if self._left < 0:
                raise TooLarge
            self._gathered.append(piece)
        return self.stop() or None

    def written(self, lot: Lot) -> None:
        """Let go of a lot."""

    def stop(self) -> Lot:
        """Give what has come and was not handed out."""
        gathered, self._gathered = self._gathered, []
        return gathered


def keep_small(path: str, kind: AssetKind, body: bytes) -> Fetched:
    """
    Verify and write a body that is in memory.

    Raises:
        InvalidMedia: It is not a whole asset of that kind; nothing was written.
        DiskFull, RunDirError: It can't be written.
    """
    facts = _read_facts(kind, BytesIO(body), len(body))
    write_whole(path, body)
    return Fetched(path, len(body), sha256(body).hexdigest(), facts)


def verify(part: PartFile, kind: AssetKind) -> Fetched:
    """
    Verify a part file that should be whole. It blocks for as long as a look at the file takes.

    Raises:
        InvalidMedia: It is not a whole asset of that kind.
        DiskFull, RunDirError: It can't be read.
    """
    digest = part.digest()
    part.close()
    try:
        with open(part.path, "rb") as file:
            return Fetched(part.path, part.size, digest, _read_facts(kind, file, part.size))
    except OSError as error:
        raise write_error(error, part.path) from error


def _read_facts(kind: AssetKind, file: Readable, size: int) -> MediaFacts:
    if not size:
        raise InvalidMedia("is empty")
    return read_mp4(file, size) if kind is AssetKind.VIDEO else read_picture(file, size)
