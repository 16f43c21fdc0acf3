"""
Read what an MP4 or QuickTime file has, and whether it is complete (ISO/IEC 14496-12).

A file is a sequence of boxes. A complete video has an `ftyp`, a `moov` and at least
one `mdat`, in any order. What follows the last of them and is not a box is padding, which some
writers and hosts add; it is no part of the video.

The file comes from an untrusted host: every size is checked against what is
there, the number of boxes is bounded, and nothing but a `moov` of reasonable size is read.
"""

from __future__ import annotations

import sys
from array import array
from struct import Struct
from typing import BinaryIO

from runner.media.headers import InvalidMedia, MediaInfo, read_at
from runner.media.tracks import (
    U32,
    U64,
    Boxes,
    Span,
    after_times,
    children_of,
    handler_of,
    is_version_1,
    number,
    read_box,
    read_tracks,
    tables_of,
)

_QUICKTIME = b"qt  "
"""The brand of QuickTime files, which have the same boxes."""

_MAX_BOXES = 100_000
"""More than a video of minutes has: two boxes per fragment, one fragment per second. A walk of 8-byte boxes must end."""
_MAX_MOOV_BYTES = 16 << 20
"""A larger `moov` is not read, so size and duration stay unknown; that of a minute of video has some 50 KB."""

_TICKS = ((16, U32, 2**32 - 1), (24, U64, 2**64 - 1))
"""By version, where a `mvhd` states its duration, and what it states if it does not know it."""
_MATRIX = Struct(">II28xII")
"""The first two numbers of the nine of a matrix, and behind them width and height, in 16.16 fixed point."""

_REQUIRED = (b"ftyp", b"moov", b"mdat")
_TOP_LEVEL = frozenset(
    b"ftyp moov mdat moof mfra sidx ssix styp emsg prft pdin meta uuid udta free skip wide".split()
)
"""A file that ends inside one of these is truncated."""


def read_mp4(file: BinaryIO, size: int) -> MediaInfo:
    """
    Check that a file is a complete MP4 or QuickTime video, and read its size, duration and tracks.

    A file that was truncated exactly between two boxes, after all that is required,
    can't be distinguished from a complete one, except by the declared length.

    Raises:
        InvalidMedia: Something is missing, or the sizes do not add up.
    """
    boxes, is_open = _top_level(file, size)
    for kind in _REQUIRED:
        if kind not in boxes:
            raise InvalidMedia(f"has no {kind.decode()} box")
    media_type = "video/quicktime" if read_at(file, boxes[b"ftyp"][0][0], 4) == _QUICKTIME else "video/mp4"
    start, end = boxes[b"moov"][0]
    if end - start > _MAX_MOOV_BYTES:
        return MediaInfo(media_type)
    moov = read_at(file, start, end - start)
    children = children_of(moov, [(0, len(moov))])
    tracks = [children_of(moov, [track]) for track in children.get(b"trak", ())]
    if is_open:
        present = sum(end - start for start, end in boxes[b"mdat"])
        if (listed := sum(_sample_bytes(moov, track) for track in tracks)) > present:
            raise InvalidMedia(f"lists {listed} bytes of samples and has {present}")
    width, height = _dimensions(moov, tracks)
    duration_s = _duration(moov, children)
    read = read_tracks(moov, children, tracks, file, boxes.get(b"moof", []))
    has_sound = bool([track for track in read if track.handler == b"soun" and track.samples])
    videos = [track for track in read if track.handler == b"vide"]
    if not videos:
        return MediaInfo(media_type, width, height, duration_s, has_sound=has_sound if read else None)
    return MediaInfo(
        media_type,
        width,
        height,
        duration_s or videos[0].duration_s,
        videos[0].codec,
        videos[0].samples_per_s,
        has_sound,
    )


def _top_level(file: BinaryIO, size: int) -> tuple[Boxes, bool]:
    """Read the boxes of a file, without padding at its end, and whether the last one is an `mdat` that states no size."""
    boxes: Boxes = {}
    offset, kind, is_open = 0, b"", False
    for _ in range(_MAX_BOXES + 1):
        if offset == size:
            return boxes, is_open and kind == b"mdat"
        header = read_at(file, offset, 16)
        if not offset and not header[4:8].isalnum():
            raise InvalidMedia("does not start like an MP4 file")
        try:
            kind, start, offset, is_open = read_box(header, 0, offset, size)
        except InvalidMedia:
            if _is_padding(header, size - offset, boxes):
                return boxes, False
            raise
        boxes.setdefault(kind, []).append((start, offset))
    raise InvalidMedia(f"has more than {_MAX_BOXES} boxes")


def _is_padding(header: bytes, left: int, boxes: Boxes) -> bool:
    """Return whether what is left of a file can't be the start of a box, and all that is required came before it."""
    return boxes.keys() >= set(_REQUIRED) and (left < 8 or header[4:8] not in _TOP_LEVEL)


def _duration(moov: bytes, children: Boxes) -> float | None:
    """Return the duration in seconds, if stated; a fragmented file may state it in `mehd` alone."""
    header = children.get(b"mvhd")
    units = after_times(moov, header)
    offset, form, unknown = _TICKS[is_version_1(moov, header)]
    ticks = number(moov, header, offset, form)
    if units and ticks in (0, unknown):
        fragments = children_of(moov, children.get(b"mvex")).get(b"mehd")
        ticks = number(moov, fragments, 4, U64 if is_version_1(moov, fragments) else U32)
    return round(ticks / units, 3) if units and ticks else None


def _dimensions(moov: bytes, tracks: list[Boxes]) -> tuple[int | None, int | None]:
    """Return width and height of the first video track: as displayed, or else as coded."""
    for track in tracks:
        media = children_of(moov, track.get(b"mdia"))
        if handler_of(moov, media) == b"vide":
            sizes = _display_size(moov, track.get(b"tkhd")) or _coded_size(moov, media)
            if sizes is not None:
                return sizes
    return None, None


def _display_size(moov: bytes, header: list[Span] | None) -> tuple[int, int] | None:
    if header is None:
        return None
    start, end = header[0]
    start += 52 if is_version_1(moov, header) else 40
    if start + _MATRIX.size > end:
        return None
    scaled, rotated, width, height = _MATRIX.unpack_from(moov, start)
    if not width >> 16 or not height >> 16:
        return None
    # A rotation by 90 degrees has zeros on the diagonal of its matrix.
    return (height >> 16, width >> 16) if rotated and not scaled else (width >> 16, height >> 16)


def _coded_size(moov: bytes, media: Boxes) -> tuple[int, int] | None:
    # After version and count: size and type of the first entry, and 24 bytes into it width and height in 16 bits.
    both = number(moov, tables_of(moov, media).get(b"stsd"), 8 + 8 + 24)
    return (both >> 16, both & 0xFFFF) if both >> 16 and both & 0xFFFF else None


def _sample_bytes(moov: bytes, track: Boxes) -> int:
    """Return how many bytes of `mdat` a track's sample table lists; 0 if there is no table."""
    table = tables_of(moov, children_of(moov, track.get(b"mdia"))).get(b"stsz")
    if table is None:
        return 0
    start, end = table[0]
    common_size, count = number(moov, table, 4), number(moov, table, 8)
    if common_size:
        return common_size * count
    sizes = array("I", moov[start + 12 : start + 12 + 4 * min(count, (end - start - 12) // 4)])
    if sys.byteorder == "little":
        sizes.byteswap()
    return sum(sizes)
