"""Read the size of PNG (W3C PNG, third edition) and JPEG files, and whether they are complete."""

from __future__ import annotations

import re
from struct import Struct
from zlib import crc32

from runner.media.facts import InvalidMedia, MediaFacts, Readable, read_at

_PNG_TYPE = "image/png"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 100_000
_CHUNK = Struct(">I4s")
_U32 = Struct(">I")


def read_png(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole PNG picture, and read its size in pixels.

    Bytes behind `IEND` are allowed, as every viewer allows them.

    Raises:
        InvalidMedia: It is cut short, or damaged where it states its size.
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
                raise InvalidMedia("has no picture in it (no IDAT chunk)")
            return facts
    raise InvalidMedia(f"is cut short: {size} bytes and no IEND chunk")


def _header(head: bytes) -> MediaFacts:
    """Read signature and `IHDR`, which is always the first chunk and has 13 bytes."""
    if head[:8] != PNG_SIGNATURE:
        raise InvalidMedia("does not begin like a PNG file")
    if len(head) < 33 or head[8:16] != b"\0\0\0\rIHDR":
        raise InvalidMedia("has no IHDR chunk")
    if crc32(head[12:29]) != _U32.unpack_from(head, 29)[0]:
        raise InvalidMedia("has a damaged IHDR chunk")
    width, height = _U32.unpack_from(head, 16)[0], _U32.unpack_from(head, 20)[0]
    if not width or not height:
        raise InvalidMedia(f"says that it is {width}x{height} pixels")
    return MediaFacts(_PNG_TYPE, width, height)


_JPEG_TYPE = "image/jpeg"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_MAX_SEGMENTS = 100_000
_PIECE_BYTES = 64 << 10
_SEGMENT = Struct(">HBHH")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The start-of-frame markers, which carry the picture's size; the three are tables that share their numbers."""
_SOS, _EOI = 0xDA, 0xD9
# In coded data FF 00 is a coded FF, FF D0 to FF D7 restart the decoder, and FF FF is padding.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")


def read_jpeg(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole JPEG picture, and read its size in pixels.

    Bytes behind the end of the image are allowed, as every viewer allows them.

    Raises:
        InvalidMedia: It is cut short, or states no size.
    """
    if read_at(file, 0, 3) != JPEG_SIGNATURE:
        raise InvalidMedia("does not begin like a JPEG file")
    facts: MediaFacts | None = None
    offset, has_scan = 2, False
    for _ in range(_MAX_SEGMENTS):
        head = read_at(file, offset, 9)
        if len(head) < 2 or head[0] != 0xFF:
            break
        marker = head[1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker == _EOI:
            if facts is None or not has_scan:
                raise InvalidMedia("has no picture in it")
            return facts
        if len(head) < 4:
            break
        if marker in _FRAMES and len(head) == 9:
            _, _, height, width = _SEGMENT.unpack_from(head, 2)
            facts = MediaFacts(_JPEG_TYPE, width or None, height or None)
        offset += 2 + int.from_bytes(head[2:4], "big")
        if marker == _SOS:
            has_scan = True
            offset = _end_of_scan(file, offset, size)
    raise InvalidMedia(f"is cut short: {size} bytes and no end of the image")


def _end_of_scan(file: Readable, offset: int, size: int) -> int:
    """Find the next marker behind coded data, reading it in pieces that overlap by a byte."""
    while offset < size:
        piece = read_at(file, offset, _PIECE_BYTES)
        if found := _MARKER.search(piece):
            return offset + found.start()
        if len(piece) < 2:
            break
        offset += len(piece) - 1
    return size


def read_picture(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole PNG or JPEG picture, by its own first bytes, and read its size in pixels.

    Raises:
        InvalidMedia: It is neither, or cut short.
    """
    head = read_at(file, 0, len(PNG_SIGNATURE))
    if head == PNG_SIGNATURE:
        return read_png(file, size)
    if head.startswith(JPEG_SIGNATURE):
        return read_jpeg(file, size)
    raise InvalidMedia("is neither a PNG nor a JPEG picture")
