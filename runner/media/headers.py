"""
The facts of a media file, and how they are read from PNG, JPEG, WAV and MP3 files: size, length, completeness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO
from zlib import crc32

from msgspec import Struct as Value


class MediaInfo(Value, frozen=True):
    """
    What was read from a complete file. What the file does not state is None.

    Attributes:
        media_type: Such as ``video/mp4``.
        width: In pixels, as displayed: a rotated video counts upright.
        duration_s: Of a video or audio; None for an image.
        codec: Of a video, such as ``h264``.
        fps: Frames per second of a video, on average.
        has_sound: Whether a video has sound, which may be silence.
    """

    media_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    codec: str | None = None
    fps: float | None = None
    has_sound: bool | None = None


class InvalidMedia(ValueError):
    """A file is truncated or is not what it should be; the message says what is wrong, as the end of a sentence."""


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read at an offset; fewer bytes than requested at the end of the file."""
    file.seek(offset)
    return file.read(size)


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


_MAX_RIFF_CHUNKS = 10_000
_RIFF_CHUNK = Struct("<4sI")
_UNKNOWN_SIZE = 0xFFFFFFFF
"""What a program writes that does not know yet how long its sound will be."""

_MAX_MP3_BYTES = 64 << 20
"""Models allow a quarter of it; what is behind it is not counted."""
_MAX_JUNK_BYTES = 64 << 10
"""Between two frames, or before the first; the tags of many programs are not frames."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Samples a second, by the version in a frame's header."""
_KBITS_V1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def read_audio(file: BinaryIO, size: int) -> MediaInfo:
    """
    Read how long a WAV or MP3 file is, whatever its name.

    Raises:
        InvalidMedia: It is neither, truncated, or damaged.
    """
    head = read_at(file, 0, 12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return MediaInfo("audio/wav", duration_s=_wav_duration(file, size))
    return MediaInfo("audio/mpeg", duration_s=_mp3_duration(file))


def _wav_duration(file: BinaryIO, size: int) -> float:
    offset, bytes_per_s = 12, 0
    for _ in range(_MAX_RIFF_CHUNKS):
        header = read_at(file, offset, 8)
        if len(header) < 8:
            break
        kind, length = _RIFF_CHUNK.unpack(header)
        offset += 8
        if kind == b"fmt ":
            bytes_per_s = int.from_bytes(read_at(file, offset + 8, 4), "little")
        elif kind == b"data":
            if not bytes_per_s:
                raise InvalidMedia("has sound before it says how the sound is coded")
            if length in (0, _UNKNOWN_SIZE):
                length = size - offset
            if offset + length > size:
                raise InvalidMedia(f"is truncated: its sound ends at byte {offset + length} of {size}")
            return round(float(length) / bytes_per_s, 3)
        offset += length + length % 2
    raise InvalidMedia("has no sound (no data chunk)")


def _mp3_duration(file: BinaryIO) -> float:
    tag = read_at(file, 0, 10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        # Seven bits of each byte.
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    data = read_at(file, start, _MAX_MP3_BYTES)
    lengths = list(_frames(data))
    if len(lengths) < 2:
        raise InvalidMedia("has no MP3 frames")
    return round(sum(lengths), 3)


def _frames(data: bytes) -> Iterator[float]:
    """Yield how many seconds each MP3 frame lasts."""
    offset, end = 0, len(data) - 4
    while offset <= end:
        frame = _frame(data, offset)
        # Two headers that fit together: one alone may be chance.
        if frame is None or (offset + frame[0] <= end and _frame(data, offset + frame[0]) is None):
            found = next(
                (at for at in range(offset + 1, min(end, offset + _MAX_JUNK_BYTES)) if _starts(data, at)),
                None,
            )
            if frame is not None:
                yield frame[1]
            if found is None:
                return
            offset = found
            continue
        yield frame[1]
        offset += frame[0]


def _starts(data: bytes, at: int) -> bool:
    """Return whether two frames begin here, one after the other."""
    frame = _frame(data, at)
    return frame is not None and _frame(data, at + frame[0]) is not None


def _frame(data: bytes, at: int) -> tuple[int, float] | None:
    """Return the bytes and the seconds of the frame of layer III whose header is here, or None."""
    if len(data) - at < 4 or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate, kbits = data[at + 1] >> 3 & 3, data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or rate == 3 or not 0 < kbits < 15:
        return None
    per_s = _RATES[version][rate]
    samples = 1152 if version == 3 else 576
    bits_per_s = 1000 * (_KBITS_V1 if version == 3 else _KBITS_V2)[kbits - 1]
    return samples // 8 * bits_per_s // per_s + (data[at + 2] >> 1 & 1), samples / per_s
