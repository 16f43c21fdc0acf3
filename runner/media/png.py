"""What a PNG file says of itself (W3C PNG, third edition): a signature, then chunks up to `IEND`."""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from runner.media.facts import Flawed, MediaFacts, Readable, read_at

MEDIA_TYPE = "image/png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 100_000
_CHUNK = Struct(">I4s")
_U32 = Struct(">I")


def read_png(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole PNG picture, and read its size in pixels.

    Bytes behind `IEND` are allowed, as every viewer allows them.

    Raises:
        Flawed: It is cut short, or damaged where it states its size.
    """
    facts = _header(read_at(file, 0, 33))
    offset, has_data = 33, False
    for _ in range(_MAX_CHUNKS):
        head = read_at(file, offset, 8)
        if len(head) < 8:
            break
        length, kind = _CHUNK.unpack(head)
        offset += 12 + length
        if offset > size:
            break
        has_data = has_data or kind == b"IDAT"
        if kind == b"IEND":
            if not has_data:
                raise Flawed("has no picture in it (no IDAT chunk)")
            return facts
    raise Flawed(f"is cut short: {size} bytes and no IEND chunk")


def _header(head: bytes) -> MediaFacts:
    """Read signature and `IHDR`, which is always the first chunk and has 13 bytes."""
    if head[:8] != SIGNATURE:
        raise Flawed("does not begin like a PNG file")
    if len(head) < 33 or head[8:16] != b"\0\0\0\rIHDR":
        raise Flawed("has no IHDR chunk")
    if crc32(head[12:29]) != _U32.unpack_from(head, 29)[0]:
        raise Flawed("has a damaged IHDR chunk")
    width, height = _U32.unpack_from(head, 16)[0], _U32.unpack_from(head, 20)[0]
    if not width or not height:
        raise Flawed(f"says that it is {width}x{height} pixels")
    return MediaFacts(MEDIA_TYPE, width, height)
