"""Responses of the API as they are received: bounded, decompressed, and read even if they are not valid HTTP."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import aiohttp
from msgspec import Struct

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a response that is read, and of what is decompressed from it; the API's own responses have about one kilobyte."""


class HttpResponse(Struct, frozen=True):
    """
    A response as it was received.

    Attributes:
        headers: Without regard to the case of their names.
        body: Decompressed, and possibly truncated.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\n]*)?\r?\n(?:[^\r\n][^\n]*\n)*\r?\n")

_CHUNK_SIZE = re.compile(rb"\A[^\r\n{\[]{1,40}\r\n(?=[{\[])")
"""In front of a body whose chunks could not be read."""


def salvage(received: bytes) -> HttpResponse | None:
    r"""
    Read a response that is not valid HTTP, such as one with two lengths, or with more bytes than its length.

    Its body is whatever follows its head. None if there is no head of a final response.

    >>> salvage(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}").body
    b'{}'
    """
    while head := _HEAD.match(received):
        received = received[head.end() :]
        if not head[1].startswith(b"1"):
            return HttpResponse(int(head[1]), {}, _CHUNK_SIZE.sub(b"", received))
    return None


async def read_bounded(content: aiohttp.StreamReader, chunks: list[bytes]) -> None:
    """Read a body, piece by piece, up to `MAX_BODY_BYTES`."""
    left = MAX_BODY_BYTES
    while left > 0 and not content.at_eof() and (chunk := await content.readany()):
        chunks.append(chunk[:left])
        left -= len(chunk)


def decompress(body: bytes, encoding: str) -> bytes:
    """
    Decompress a body that was compressed though that was not requested, up to `MAX_BODY_BYTES`.

    A body that can't be decompressed is returned as it is.

    >>> decompress(zlib.compress(b'{"id": "task_1"}'), "deflate")
    b'{"id": "task_1"}'
    """
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        # 32 + 15: the header tells whether it is gzip or zlib.
        return zlib.decompressobj(wbits=47).decompress(body, MAX_BODY_BYTES)
    except zlib.error:
        return body
