"""
Read the size and duration of an MP4 file, and whether it is complete (ISO/IEC 14496-12).

A file is a sequence of boxes: a 32-bit size, a type of four letters, the content. A
size of 1 means that a 64-bit size follows the type, a size of 0 that the box
extends to the end of the file. A complete video has an `ftyp`, a `moov` and at least
one `mdat`, in any order. What follows the last of them and is no box is padding, which some
writers and hosts add; it is no part of the video.

The file comes from an untrusted host: every size is checked against what is
there, the walk is bounded, and nothing but a `moov` of reasonable size is read.
"""

from __future__ import annotations

import sys
from array import array
from struct import Struct
from typing import BinaryIO

from runner.media.info import InvalidMedia, MediaInfo, read_at

_MEDIA_TYPE = "video/mp4"

_MAX_BOXES = 100_000
"""More than a video of minutes has: two boxes per fragment, one fragment per second. A walk of 8-byte boxes must end."""
_MAX_CHILDREN = 10_000
"""Of one box inside the `moov`, where a dozen is usual: 2 million empty ones took 1 GB of memory."""
_MAX_MOOV_BYTES = 16 << 20
"""A larger `moov` is not read, so size and duration stay unknown; that of a minute of video has some 50 KB."""

_U32 = Struct(">I")
_U64 = Struct(">Q")
_HEADER = Struct(">I4s")
_REQUIRED = (b"ftyp", b"moov", b"mdat")
_TOP_LEVEL = frozenset(
    b"ftyp moov mdat moof mfra sidx ssix styp emsg prft pdin meta uuid udta free skip wide".split()
)
"""A file that ends inside one of these is truncated."""


_Box = tuple[bytes, int, int]
"""The type of a box, and the offsets at which its content starts and ends."""


def read_mp4(file: BinaryIO, size: int) -> MediaInfo:
    """
    Check that a file is a complete MP4 video, and read its size and duration.

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
    _, start, end = next(box for box in boxes if box[0] == b"moov")
    if end - start > _MAX_MOOV_BYTES:
        return MediaInfo(_MEDIA_TYPE)
    moov = read_at(file, start, end - start)
    children = _children(moov, 0, len(moov))
    tracks = [_children(moov, start, end) for kind, start, end in children if kind == b"trak"]
    if is_open and boxes[-1][0] == b"mdat":
        present = sum(end - start for kind, start, end in boxes if kind == b"mdat")
        if (listed := sum(_sample_bytes(moov, track) for track in tracks)) > present:
            raise InvalidMedia(f"lists {listed} bytes of samples and has {present}")
    width, height = _dimensions(moov, tracks)
    return MediaInfo(_MEDIA_TYPE, width, height, _duration(moov, children))


def _top_level(file: BinaryIO, size: int) -> tuple[list[_Box], bool]:
    """List the boxes of a file, without padding at its end; also return whether the last one states no size."""
    boxes: list[_Box] = []
    offset, is_open = 0, False
    while offset < size:
        if len(boxes) == _MAX_BOXES:
            raise InvalidMedia(f"has more than {_MAX_BOXES} boxes")
        header = read_at(file, offset, 16)
        if not offset and not header[4:8].isalnum():
            raise InvalidMedia("does not start like an MP4 file")
        try:
            box, is_open = _box(header, 0, offset, size)
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


def _children(data: bytes, start: int, end: int) -> list[_Box]:
    """List the boxes in a part of memory."""
    boxes: list[_Box] = []
    # A box has at least eight bytes; a shorter rest is padding that some writers leave.
    while end - start >= 8:
        size, kind = _HEADER.unpack_from(data, start)
        if 8 <= size <= end - start and kind.isalnum():
            # The fast path: nearly all boxes, and every small file has a dozen.
            boxes.append((kind, start + 8, start + size))
        else:
            boxes.append(_box(data, start, start, end)[0])
        start = boxes[-1][2]
        if len(boxes) > _MAX_CHILDREN:
            raise InvalidMedia(f"has more than {_MAX_CHILDREN} boxes in one box")
    return boxes


def _box(data: bytes, at: int, offset: int, limit: int) -> tuple[_Box, bool]:
    """
    Read the box header at `at` in `data`, which is at `offset` in the file; the box must end by `limit`.

    Also return whether the box states no size, and so looks complete however much of it is missing.
    """
    if len(data) - at < 8:
        raise InvalidMedia(f"ends inside the header of a box, at byte {limit}")
    size, kind = _HEADER.unpack_from(data, at)
    start = offset + 8
    if size == 1:
        if len(data) - at < 16:
            raise InvalidMedia(f"ends inside the header of a box, at byte {limit}")
        size, start = _U64.unpack_from(data, at + 8)[0], offset + 16
    end = offset + size if size else limit
    if min(kind) < 0x20:
        raise InvalidMedia(f"has no valid box at byte {offset}")
    if end < start:
        raise InvalidMedia(f"has a {_name(kind)} box at byte {offset} that is smaller than its own header")
    if end > limit:
        raise InvalidMedia(f"is truncated: its {_name(kind)} box ends at byte {end} of {limit}")
    return (kind, start, end), not size


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _find(moov: bytes, boxes: list[_Box], *path: bytes) -> _Box | None:
    """Return the first box at a path of types, starting from a list of boxes; None if there is none."""
    found: _Box | None = None
    for kind in path:
        if found is not None:
            boxes = _children(moov, found[1], found[2])
        for found in boxes:
            if found[0] == kind:
                break
        else:
            return None
    return found


def _duration(moov: bytes, children: list[_Box]) -> float | None:
    """Return the duration in seconds, if stated; a fragmented file may state it in `mehd` alone."""
    header = _find(moov, children, b"mvhd")
    if header is None:
        return None
    is_long = _is_version_1(moov, header)
    units = _number(moov, header, 20 if is_long else 12, _U32)
    if not units:
        return None
    ticks = _number(moov, header, 24 if is_long else 16, _U64 if is_long else _U32)
    if not ticks or ticks == (2**64 if is_long else 2**32) - 1:
        fragments = _find(moov, children, b"mvex", b"mehd")
        if fragments is None:
            return None
        ticks = _number(moov, fragments, 4, _U64 if _is_version_1(moov, fragments) else _U32)
    return round(ticks / units, 3) if ticks else None


def _dimensions(moov: bytes, tracks: list[list[_Box]]) -> tuple[int | None, int | None]:
    """Return width and height of the first video track: as displayed, or else as coded."""
    for track in tracks:
        handler = _find(moov, track, b"mdia", b"hdlr")
        if handler is None or moov[handler[1] + 8 : handler[1] + 12] != b"vide":
            continue
        sizes = _display_size(moov, track) or _coded_size(moov, track)
        if sizes is not None:
            return sizes
    return None, None


def _display_size(moov: bytes, track: list[_Box]) -> tuple[int, int] | None:
    header = _find(moov, track, b"tkhd")
    if header is None:
        return None
    matrix = 52 if _is_version_1(moov, header) else 40
    # Both are 16.16 fixed point, after the matrix of nine numbers.
    width = (_number(moov, header, matrix + 36, _U32) or 0) >> 16
    height = (_number(moov, header, matrix + 40, _U32) or 0) >> 16
    if not width or not height:
        return None
    # A rotation by 90 degrees has zeros on the diagonal of its matrix.
    is_rotated = not _number(moov, header, matrix, _U32) and bool(_number(moov, header, matrix + 4, _U32))
    return (height, width) if is_rotated else (width, height)


def _coded_size(moov: bytes, track: list[_Box]) -> tuple[int, int] | None:
    entries = _find(moov, track, b"mdia", b"minf", b"stbl", b"stsd")
    if entries is None:
        return None
    # After version and count: size and type of the first entry, and 24 bytes into it width and height in 16 bits.
    both = _number(moov, entries, 8 + 8 + 24, _U32) or 0
    return (both >> 16, both & 0xFFFF) if both >> 16 and both & 0xFFFF else None


def _sample_bytes(moov: bytes, track: list[_Box]) -> int:
    """Return how many bytes of `mdat` a track's sample table lists; 0 if there is no table."""
    table = _find(moov, track, b"mdia", b"minf", b"stbl", b"stsz")
    if table is None:
        return 0
    _, start, end = table
    common_size = _number(moov, table, 4, _U32) or 0
    count = _number(moov, table, 8, _U32) or 0
    if common_size:
        return common_size * count
    sizes = array("I", moov[start + 12 : start + 12 + 4 * min(count, (end - start - 12) // 4)])
    if sys.byteorder == "little":
        sizes.byteswap()
    return sum(sizes)


def _is_version_1(moov: bytes, box: _Box) -> bool:
    return box[2] > box[1] and moov[box[1]] == 1


def _number(moov: bytes, box: _Box, offset: int, form: Struct) -> int | None:
    """Return the number at an offset in a box; None if the box is too short."""
    if box[1] + offset + form.size > box[2]:
        return None
    number: int = form.unpack_from(moov, box[1] + offset)[0]
    return number
