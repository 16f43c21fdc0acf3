"""Mux one H.264 track into an MP4 file (ISO/IEC 14496-12 and -15)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from runner.core.value import frozen

TICKS_PER_FRAME = 512
"""Of the track's clock; the usual choice, which divides evenly for every frame rate."""

_MOVIE_CLOCK = 1000
_UNITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_LANGUAGE_UNDETERMINED = 0x55C4


@frozen
class Track:
    """
    What the file says of its one track.

    Attributes:
        sizes: Bytes of each frame, the four of its length included; the first is the only key frame.
    """

    width: int
    height: int
    frames_per_s: int
    sizes: Sequence[int]
    sps: bytes
    pps: bytes


def box(name: bytes, *parts: bytes) -> bytes:
    """Return a box with its header."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def free_header(size: int) -> bytes:
    """
    Return the header of a `free` box of `size` bytes in all, 16 or more.

    The header is always the long one, so a file can be padded to any size.
    """
    return struct.pack(">I4sQ", 1, b"free", size)


def file_type() -> bytes:
    """Return the `ftyp` box."""
    return box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")


def media_header(track: Track) -> bytes:
    """Return the header of the `mdat` box; the frames follow."""
    return struct.pack(">I4s", 8 + sum(track.sizes), b"mdat")


def movie(track: Track, *, offset: int) -> bytes:
    """
    Return the `moov` box.

    Args:
        offset: Where in the file the first frame starts. The box is of the same size for each.
    """
    seconds = len(track.sizes) / track.frames_per_s
    duration = round(seconds * _MOVIE_CLOCK)
    header = _full_box(
        b"mvhd",
        struct.pack(">4I", 0, 0, _MOVIE_CLOCK, duration),
        struct.pack(">IH10x", 0x10000, 0x100),
        _UNITY,
        struct.pack(">24xI", 2),
    )
    return box(b"moov", header, _track(track, duration, offset))


def _track(track: Track, duration: int, offset: int) -> bytes:
    # Flags 3: the track is enabled, and part of the presentation.
    header = _full_box(
        b"tkhd",
        struct.pack(">5I8x4H", 0, 0, 1, 0, duration, 0, 0, 0, 0),
        _UNITY,
        struct.pack(">2I", track.width << 16, track.height << 16),
        flags=3,
    )
    return box(b"trak", header, _media(track, offset))


def _media(track: Track, offset: int) -> bytes:
    clock = track.frames_per_s * TICKS_PER_FRAME
    length = len(track.sizes) * TICKS_PER_FRAME
    header = _full_box(b"mdhd", struct.pack(">4I2H", 0, 0, clock, length, _LANGUAGE_UNDETERMINED, 0))
    handler = _full_box(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"VideoHandler\0")
    # Flags 1: the frames are in this very file.
    reference = _full_box(b"dref", struct.pack(">I", 1), _full_box(b"url ", flags=1))
    information = box(
        b"minf",
        _full_box(b"vmhd", bytes(8), flags=1),
        box(b"dinf", reference),
        _sample_table(track, offset),
    )
    return box(b"mdia", header, handler, information)


def _sample_table(track: Track, offset: int) -> bytes:
    count = len(track.sizes)
    return box(
        b"stbl",
        _full_box(b"stsd", struct.pack(">I", 1), _sample_entry(track)),
        _full_box(b"stts", struct.pack(">3I", 1, count, TICKS_PER_FRAME)),
        _full_box(b"stss", struct.pack(">2I", 1, 1)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full_box(b"stsz", struct.pack(f">2I{count}I", 0, count, *track.sizes)),
        _full_box(b"stco", struct.pack(">2I", 1, offset)),
    )


def _sample_entry(track: Track) -> bytes:
    configuration = (
        b"\x01"
        + track.sps[1:4]
        + b"\xff\xe1"
        + struct.pack(">H", len(track.sps))
        + track.sps
        + b"\x01"
        + struct.pack(">H", len(track.pps))
        + track.pps
    )
    return box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, track.width, track.height),
        # 72 dots an inch, one frame a sample, no compressor's name, 24 bits of colour.
        struct.pack(">3IH32xHh", 0x480000, 0x480000, 0, 1, 24, -1),
        box(b"avcC", configuration),
    )


def _full_box(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", flags), *parts)
