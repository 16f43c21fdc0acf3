"""
An answer of the API as plain values, read within bounds.

The status line decides; the body is read as far as it comes. A body that breaks
off, comes too slowly or never ends is cut there, and the reader of the answer
judges what arrived: a refusal stays a refusal, and a task id that arrived whole
is not lost because the connection broke behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import aiohttp

from runner.core.value import frozen

MOST_BYTES = 4 * 1024 * 1024
"""Of a body that is read, and of what is unpacked from it; the API's own answers have about one kilobyte."""


@frozen
class Answer:
    """
    What came back.

    Attributes:
        headers: Found by any spelling of their names.
        body: Unpacked, and possibly cut short.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    """Read what there is of an answer, and let go of its connection. A cancellation passes through."""
    try:
        body = await _read_bounded(response.content)
    finally:
        # Reuses the connection where the body was read to its end, and closes it where it was not.
        response.release()
    encoding = response.headers.get("Content-Encoding")
    return Answer(response.status, response.headers, unpack(body, encoding) if encoding else body)


async def _read_bounded(content: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    room = MOST_BYTES
    try:
        while room > 0 and (chunk := await content.readany()):
            chunks.append(chunk[:room])
            room -= len(chunk)
    except (aiohttp.ClientError, OSError):
        # Broken off, badly framed, or (TimeoutError is an OSError) too slow: what arrived is judged.
        pass
    return b"".join(chunks)


def unpack(body: bytes, encoding: str) -> bytes:
    """
    Unpack a body that was compressed although nobody asked for it, up to `MOST_BYTES`.

    A body that can't be unpacked comes back as it is.

    >>> unpack(zlib.compress(b'{"id": "task_1"}'), "deflate")
    b'{"id": "task_1"}'
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        # 32 + 15: the header says whether it is gzip or zlib.
        return zlib.decompressobj(wbits=47).decompress(body, MOST_BYTES)
    except zlib.error:
        return body
