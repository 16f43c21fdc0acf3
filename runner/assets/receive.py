"""Write the body of a response to the disk, through bounded memory and off the event loop."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from hashlib import sha256
from io import BytesIO
from typing import BinaryIO

from aiohttp import ClientPayloadError, ClientResponse, SocketTimeoutError

from runner.assets.part_file import PartFile, write_file
from runner.assets.request import Fetched
from runner.core.model import AssetKind
from runner.core.settings import Timeouts
from runner.disk import asset_error
from runner.media import InvalidMedia, MediaInfo, read_image, read_mp4
from runner.network import Deadline

BATCH_BYTES = 128 << 10
"""How much gathers before a thread writes it: a change of threads costs as much as writing 100 KB."""


MAX_BATCH_S = 5.0
"""How old a batch may become before it is written, so that a slow download is on disk too."""
LEAST_SPEED_WINDOW_S = 60.0
SPACE_CHECK_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_COMPRESSED_STARTS = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


class TooLarge(Exception):
    """A body without a declared length grew past what is allowed."""


class TooSlow(Exception):
    """A body came more slowly than is allowed, over `LEAST_SPEED_WINDOW_S`."""


async def receive(
    response: ClientResponse,
    part: PartFile,
    threads: Executor,
    *,
    offset: int,
    max_bytes: int,
    timeouts: Timeouts,
    check_space: Callable[[], None],
    is_compressed: bool = False,
) -> None:
    """
    Write a body to its part file while it arrives.

    While a batch is written, only what fits the session's read buffer is received. What was
    received before an error is on disk when this returns.

    Args:
        check_space: Called now and then, to raise `DiskFull` before a body of any length has filled the disk.

    Raises:
        TooLarge: The file would have more than `max_bytes`.
        TooSlow: The body arrives too slowly.
        InvalidMedia: It is compressed, and damaged.
        OverlapMismatch: The body does not continue what is on disk.
        DiskFull, RunDirError: It can't be written.
        aiohttp.ClientError, TimeoutError, OSError: The network failed.
    """
    loop = asyncio.get_running_loop()
    part.start(offset)
    batch: list[bytes] = []
    batch_bytes, left, since_check = 0, max_bytes - offset, 0
    written_at = loop.time()
    chunks = arriving(response, timeouts)
    try:
        async for chunk in decompressed(chunks) if is_compressed else chunks:
            left -= len(chunk)
            if left < 0:
                raise TooLarge
            batch.append(chunk)
            batch_bytes += len(chunk)
            since_check += len(chunk)
            if batch_bytes >= BATCH_BYTES or loop.time() - written_at >= MAX_BATCH_S:
                # Taken first: if this is canceled or fails, nothing may follow a batch that is perhaps torn.
                full, batch, batch_bytes = batch, [], 0
                await loop.run_in_executor(threads, part.append, full)
                written_at = loop.time()
            if since_check >= SPACE_CHECK_BYTES:
                since_check = 0
                check_space()
    finally:
        if batch:
            await loop.run_in_executor(threads, part.append, batch)


async def arriving(response: ClientResponse, timeouts: Timeouts) -> AsyncIterator[bytes]:
    """
    Yield a body's pieces while they arrive. The time that the caller takes for each does not count.

    Raises:
        TooSlow: Less than the least speed arrived over a minute.
        aiohttp.ClientError, OSError: The network failed, or nothing arrived for `timeouts.stall_s`.
    """
    loop, content, stall_s = asyncio.get_running_loop(), response.content, timeouts.stall_s
    min_bytes = timeouts.least_bytes_per_s * LEAST_SPEED_WINDOW_S
    window_s, missing = LEAST_SPEED_WINDOW_S, min_bytes
    while window_s > 0:
        chunk = content.read_nowait(-1)
        if not chunk:
            if content.at_eof():
                return
            limit_s, began_at = min(stall_s, window_s), loop.time()
            try:
                with Deadline(limit_s):
                    chunk = await content.readany()
            except TimeoutError as error:
                raise (SocketTimeoutError() if stall_s <= window_s else TooSlow()) from error
            if not chunk:
                return
            waited_s = loop.time() - began_at
            # This process was stopped for longer than it would have waited: that says nothing of the host.
            window_s = LEAST_SPEED_WINDOW_S if waited_s > limit_s else window_s - waited_s
        missing -= len(chunk)
        if missing <= 0:
            window_s, missing = LEAST_SPEED_WINDOW_S, min_bytes
        yield chunk
    raise TooSlow


async def decompressed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """
    Yield a body that was compressed though that was not requested; one that only claims to be is yielded as it is.

    Raises:
        InvalidMedia: It is damaged.
        aiohttp.ClientPayloadError: It is truncated.
    """
    decompressor = None
    async for chunk in chunks:
        if decompressor is None:
            if not chunk.startswith(_COMPRESSED_STARTS):
                yield chunk
                async for rest in chunks:
                    yield rest
                return
            # 32 + 15: the header shows whether it is gzip or zlib.
            decompressor = zlib.decompressobj(wbits=47)
        while chunk:
            try:
                piece = decompressor.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                raise InvalidMedia("is compressed, and damaged") from error
            chunk = decompressor.unconsumed_tail
            if piece:
                yield piece
    if decompressor is not None:
        if rest := decompressor.flush():
            yield rest
        if not decompressor.eof:
            raise ClientPayloadError


def write_small(path: str, kind: AssetKind, content: bytes) -> Fetched:
    """
    Verify and write a body that is in memory.

    Raises:
        InvalidMedia: It is not a complete asset of that kind; nothing was written.
        DiskFull, RunDirError: It can't be written.
    """
    info = _read_info(kind, BytesIO(content), len(content))
    write_file(path, content)
    return Fetched(path, len(content), sha256(content).hexdigest(), info)


def verify(part: PartFile, kind: AssetKind) -> Fetched:
    """
    Verify a part file that should be complete. It blocks while the file is read.

    Raises:
        InvalidMedia: It is not a complete asset of that kind.
        DiskFull, RunDirError: It can't be read.
    """
    digest = part.digest()
    part.close()
    try:
        with open(part.path, "rb") as file:
            return Fetched(part.path, part.size, digest, _read_info(kind, file, part.size))
    except OSError as error:
        raise asset_error(error, part.path) from error


def _read_info(kind: AssetKind, file: BinaryIO, size: int) -> MediaInfo:
    if not size:
        raise InvalidMedia("is empty")
    return read_mp4(file, size) if kind is AssetKind.VIDEO else read_image(file, size)
