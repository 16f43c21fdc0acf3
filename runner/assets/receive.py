"""Write the body of a response to the disk, through bounded memory and off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from hashlib import sha256
from io import BytesIO
from typing import BinaryIO

from aiohttp import ClientResponse

from runner.assets.part_file import PartFile, write_file
from runner.assets.request import Fetched
from runner.core.model import AssetKind
from runner.disk import write_error
from runner.media import InvalidMedia, MediaInfo, read_image, read_mp4

BATCH_BYTES = 256 << 10
"""How much gathers before a thread writes it: a change of threads costs as much as writing 100 KB."""


class TooLarge(Exception):
    """A body without a declared length grew past what is allowed."""


async def receive(
    response: ClientResponse, part: PartFile, threads: Executor, *, offset: int, max_bytes: int
) -> None:
    """
    Write a body to its part file while it arrives.

    While a batch is written, only what fits the session's read buffer is received. What was
    received before an error is on disk when this returns.

    Raises:
        TooLarge: The file would have more than `max_bytes`.
        OverlapMismatch: The body does not continue what is on disk.
        DiskFull, RunDirError: It can't be written.
        aiohttp.ClientError, TimeoutError, OSError: The network failed.
    """
    loop = asyncio.get_running_loop()
    part.start(offset)
    batch: list[bytes] = []
    batch_bytes, left = 0, max_bytes - offset
    try:
        async for chunk in response.content.iter_any():
            left -= len(chunk)
            if left < 0:
                raise TooLarge
            batch.append(chunk)
            batch_bytes += len(chunk)
            if batch_bytes >= BATCH_BYTES:
                # Taken first: if this is canceled or fails, nothing may follow a batch that is perhaps torn.
                full, batch, batch_bytes = batch, [], 0
                await loop.run_in_executor(threads, part.append, full)
    finally:
        if batch:
            await loop.run_in_executor(threads, part.append, batch)


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
        raise write_error(error, part.path) from error


def _read_info(kind: AssetKind, file: BinaryIO, size: int) -> MediaInfo:
    if not size:
        raise InvalidMedia("is empty")
    return read_mp4(file, size) if kind is AssetKind.VIDEO else read_image(file, size)
