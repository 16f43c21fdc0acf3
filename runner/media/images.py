"""Read the size of PNG (W3C PNG, third edition) and JPEG images, and whether they are complete."""

from __future__ import annotations

import re
from struct import Struct
from typing import BinaryIO
from zlib import crc32

from runner.media.info import InvalidMedia, MediaInfo, read_at

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
_CHUNK = Struct(">I4s")
_U32 = Struct(">I")

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_MAX_SEGMENTS = 100_000
_READ_BYTES = 64 << 10
_FRAME = Struct(">HBHH")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of the frame header, which has the image's size; the three in between mark tables."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# In coded data FF 00 is an escaped FF, FF D0 to FF D7 restart the decoder, and FF FF is padding.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")


def read_image(file: BinaryIO, size: int) -> MediaInfo:
    """
    Check that a file is a complete PNG or JPEG image, whatever its name, and read its size in pixels.

    Bytes after the end of the image are allowed, as viewers allow them.

    Raises:
        InvalidMedia: It is neither, truncated, or damaged where it states its size.
    """
    signature = read_at(file, 0, len(_PNG_SIGNATURE))
    if signature == _PNG_SIGNATURE:
        return _read_png(file, size)
    if signature.startswith(_JPEG_SIGNATURE):
        return _read_jpeg(file, size)
    raise InvalidMedia("is neither a PNG nor a JPEG image")


def _read_png(file: BinaryIO, size: int) -> MediaInfo:
    info = _read_png_header(read_at(file, 0, 33))
    offset, has_data = 33, False
    for _ in range(_MAX_CHUNKS):
        header = read_at(file, offset, 8)
        if len(header) < 8:
            break
        length, kind = _CHUNK.unpack(header)
        offset += 12 + length
        if offset > size:
            break
        has_data = has_data or kind == b"IDAT"
        if kind == b"IEND":
            if not has_data:
                raise InvalidMedia("has no image data (no IDAT chunk)")
            return info
    raise InvalidMedia(f"is truncated: {size} bytes and no IEND chunk")


def _read_png_header(header: bytes) -> MediaInfo:
    """Read the signature and `IHDR`, which is always the first chunk and has 13 bytes."""
    if len(header) < 33 or header[8:16] != b"\0\0\0\rIHDR":
        raise InvalidMedia("has no IHDR chunk")
    if crc32(header[12:29]) != _U32.unpack_from(header, 29)[0]:
        raise InvalidMedia("has a damaged IHDR chunk")
    width, height = _U32.unpack_from(header, 16)[0], _U32.unpack_from(header, 20)[0]
    if not width or not height:
        raise InvalidMedia(f"states a size of {width}x{height} pixels")
    return MediaInfo("image/png", width, height)


def _read_jpeg(file: BinaryIO, size: int) -> MediaInfo:
    info: MediaInfo | None = None
    offset, has_scan = 2, False
    for _ in range(_MAX_SEGMENTS):
        header = read_at(file, offset, 9)
        if len(header) < 2 or header[0] != 0xFF:
            break
        marker = header[1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker == _END_OF_IMAGE:
            if info is None or not has_scan:
                raise InvalidMedia("has no image data")
            return info
        if len(header) < 4:
            break
        if marker in _START_OF_FRAME and len(header) == 9:
            _, _, height, width = _FRAME.unpack_from(header, 2)
            info = MediaInfo("image/jpeg", width or None, height or None)
        offset += 2 + int.from_bytes(header[2:4], "big")
        if marker == _START_OF_SCAN:
            has_scan = True
            offset = _find_end_of_scan(file, offset, size)
    raise InvalidMedia(f"is truncated: {size} bytes and no end of the image")


def _find_end_of_scan(file: BinaryIO, offset: int, size: int) -> int:
    """Find the next marker after coded data, in reads that overlap by a byte."""
    while offset < size:
        data = read_at(file, offset, _READ_BYTES)
        if found := _MARKER.search(data):
            return offset + found.start()
        if len(data) < 2:
            break
        offset += len(data) - 1
    return size
