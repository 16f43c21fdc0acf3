"""What a JPEG file says of itself (ITU-T T.81, annex B): segments between markers, and coded data up to `EOI`."""

from __future__ import annotations

import re
from struct import Struct

from runner.media.facts import Flawed, MediaFacts, Readable, read_at

MEDIA_TYPE = "image/jpeg"
SIGNATURE = b"\xff\xd8\xff"

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
        Flawed: It is cut short, or states no size.
    """
    if read_at(file, 0, 3) != SIGNATURE:
        raise Flawed("does not begin like a JPEG file")
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
                raise Flawed("has no picture in it")
            return facts
        if len(head) < 4:
            break
        if marker in _FRAMES and len(head) == 9:
            _, _, height, width = _SEGMENT.unpack_from(head, 2)
            facts = MediaFacts(MEDIA_TYPE, width or None, height or None)
        offset += 2 + int.from_bytes(head[2:4], "big")
        if marker == _SOS:
            has_scan = True
            offset = _end_of_scan(file, offset, size)
    raise Flawed(f"is cut short: {size} bytes and no end of the image")


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
