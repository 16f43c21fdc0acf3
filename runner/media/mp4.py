"""
Read what an MP4 or QuickTime file has, and whether it is complete (ISO/IEC 14496-12).

A file is a sequence of boxes. A complete video has an `ftyp`, a `moov` and at least
one `mdat`, in any order. What follows the last of them and is no box is padding, which some
writers and hosts add; it is no part of the video.

The file comes from an untrusted host: every size is checked against what is
there, the walk is bounded, and nothing but a `moov` of reasonable size is read.
"""

from __future__ import annotations

import sys
from array import array
from typing import BinaryIO

from runner.media.boxes import U32, U64, Box, children_of, find, is_version_1, number, read_box
from runner.media.info import InvalidMedia, MediaInfo, read_at
from runner.media.tracks import read_tracks

_QUICKTIME = b"qt  "
"""The brand of QuickTime files, which have the same boxes."""

_MAX_BOXES = 100_000
"""More than a video of minutes has: two boxes per fragment, one fragment per second. A walk of 8-byte boxes must end."""
_MAX_MOOV_BYTES = 16 << 20
"""A larger `moov` is not read, so size and duration stay unknown; that of a minute of video has some 50 KB."""

_REQUIRED = (b"ftyp", b"moov", b"mdat")
_TOP_LEVEL = frozenset(
    b"ftyp moov mdat moof mfra sidx ssix styp emsg prft pdin meta uuid udta free skip wide".split()
)
"""A file that ends inside one of these is truncated."""


def read_mp4(file: BinaryIO, size: int) -> MediaInfo:
    """
    Check that a file is a complete MP4 or QuickTime video, and read its size, duration and tracks.

    A file that was truncated exactly between two boxes, after all that is required,
    can't be told from a complete one; the declared length tells that.

    Raises:
        InvalidMedia: Something is missing, or the sizes do not add up.
    """
    boxes, is_open = _top_level(file, size)
    kinds = {kind for kind, _, _ in boxes}
    for kind in _REQUIRED:
        if kind not in kinds:
            raise InvalidMedia(f"has no {kind.decode()} box")
    _, start, _ = next(box for box in boxes if box[0] == b"ftyp")
    media_type = "video/quicktime" if read_at(file, start, 4) == _QUICKTIME else "video/mp4"
    _, start, end = next(box for box in boxes if box[0] == b"moov")
    if end - start > _MAX_MOOV_BYTES:
        return MediaInfo(media_type)
    moov = read_at(file, start, end - start)
    children = children_of(moov, 0, len(moov))
    tracks = [children_of(moov, start, end) for kind, start, end in children if kind == b"trak"]
    if is_open and boxes[-1][0] == b"mdat":
        present = sum(end - start for kind, start, end in boxes if kind == b"mdat")
        if (listed := sum(_sample_bytes(moov, track) for track in tracks)) > present:
            raise InvalidMedia(f"lists {listed} bytes of samples and has {present}")
    width, height = _dimensions(moov, tracks)
    duration_s = _duration(moov, children)
    read = read_tracks(moov, children, file, boxes)
    video = next((track for track in read if track.handler == b"vide"), None)
    return MediaInfo(
        media_type,
        width,
        height,
        duration_s if duration_s or video is None else video.duration_s,
        None if video is None else video.codec,
        None if video is None else video.samples_per_s,
        any(track.handler == b"soun" and track.samples for track in read) if read else None,
    )


def _top_level(file: BinaryIO, size: int) -> tuple[list[Box], bool]:
    """List the boxes of a file, without padding at its end; also return whether the last one states no size."""
    boxes: list[Box] = []
    offset, is_open = 0, False
    while offset < size:
        if len(boxes) == _MAX_BOXES:
            raise InvalidMedia(f"has more than {_MAX_BOXES} boxes")
        header = read_at(file, offset, 16)
        if not offset and not header[4:8].isalnum():
            raise InvalidMedia("does not start like an MP4 file")
        try:
            box, is_open = read_box(header, 0, offset, size)
        except InvalidMedia:
            if _is_padding(header, size - offset, {kind for kind, _, _ in boxes}):
                break
            raise
        boxes.append(box)
        offset = box[2]
    return boxes, is_open


def _is_padding(header: bytes, left: int, kinds: set[bytes]) -> bool:
    """Return whether what is left of a file can't be the start of a box, and all that is required came before it."""
    return kinds.issuperset(_REQUIRED) and (left < 8 or header[4:8] not in _TOP_LEVEL)


def _duration(moov: bytes, children: list[Box]) -> float | None:
    """Return the duration in seconds, if stated; a fragmented file may state it in `mehd` alone."""
    header = find(moov, children, b"mvhd")
    if header is None:
        return None
    is_long = is_version_1(moov, header)
    units = number(moov, header, 20 if is_long else 12, U32)
    if not units:
        return None
    ticks = number(moov, header, 24 if is_long else 16, U64 if is_long else U32)
    if not ticks or ticks == (2**64 if is_long else 2**32) - 1:
        fragments = find(moov, children, b"mvex", b"mehd")
        if fragments is None:
            return None
        ticks = number(moov, fragments, 4, U64 if is_version_1(moov, fragments) else U32)
    return round(ticks / units, 3) if ticks else None


def _dimensions(moov: bytes, tracks: list[list[Box]]) -> tuple[int | None, int | None]:
    """Return width and height of the first video track: as displayed, or else as coded."""
    for track in tracks:
        handler = find(moov, track, b"mdia", b"hdlr")
        if handler is None or moov[handler[1] + 8 : handler[1] + 12] != b"vide":
            continue
        sizes = _display_size(moov, track) or _coded_size(moov, track)
        if sizes is not None:
            return sizes
    return None, None


def _display_size(moov: bytes, track: list[Box]) -> tuple[int, int] | None:
    header = find(moov, track, b"tkhd")
    if header is None:
        return None
    matrix = 52 if is_version_1(moov, header) else 40
    # Both are 16.16 fixed point, after the matrix of nine numbers.
    width = (number(moov, header, matrix + 36, U32) or 0) >> 16
    height = (number(moov, header, matrix + 40, U32) or 0) >> 16
    if not width or not height:
        return None
    # A rotation by 90 degrees has zeros on the diagonal of its matrix.
    is_rotated = not number(moov, header, matrix, U32) and bool(number(moov, header, matrix + 4, U32))
    return (height, width) if is_rotated else (width, height)


def _coded_size(moov: bytes, track: list[Box]) -> tuple[int, int] | None:
    entries = find(moov, track, b"mdia", b"minf", b"stbl", b"stsd")
    if entries is None:
        return None
    # After version and count: size and type of the first entry, and 24 bytes into it width and height in 16 bits.
    both = number(moov, entries, 8 + 8 + 24, U32) or 0
    return (both >> 16, both & 0xFFFF) if both >> 16 and both & 0xFFFF else None


def _sample_bytes(moov: bytes, track: list[Box]) -> int:
    """Return how many bytes of `mdat` a track's sample table lists; 0 if there is no table."""
    table = find(moov, track, b"mdia", b"minf", b"stbl", b"stsz")
    if table is None:
        return 0
    _, start, end = table
    common_size = number(moov, table, 4, U32) or 0
    count = number(moov, table, 8, U32) or 0
    if common_size:
        return common_size * count
    sizes = array("I", moov[start + 12 : start + 12 + 4 * min(count, (end - start - 12) // 4)])
    if sys.byteorder == "little":
        sizes.byteswap()
    return sum(sizes)
