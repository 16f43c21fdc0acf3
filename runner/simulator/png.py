"""Write a PNG picture of flat stripes in up to four colours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

Rgb = tuple[int, int, int]


def picture(width: int, height: int, palette: Sequence[Rgb], stripes: Iterable[tuple[int, bytes]]) -> bytes:
    """
    Return a palette picture of two bits a pixel.

    Args:
        palette: Up to four colours.
        stripes: Rows of pixels from the top: how often each is repeated, and its packed pixels, four to a byte.
    """
    row_bytes = -(-width // 4)
    # Every row starts with its filter: 0 for none.
    rows = b"".join((b"\0" + pixels[:row_bytes]) * repeat for repeat, pixels in stripes)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, 2, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
