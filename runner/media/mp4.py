"""
What an MP4 file says of itself (ISO/IEC 14496-12).

A file is a row of boxes: a 32-bit size, a type of four letters, the content. A
size of 1 means that 64 bits of size follow the type, a size of 0 that the box
runs to the end of the file. A whole video has an `ftyp`, a `moov` and at least
one `mdat`, in any order, and its boxes fill the file to the last byte.

The file comes from a host that nobody trusts: every size is held against what
is there, the walk is bounded, and nothing but a `moov` of sane size is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from runner.media.facts import Flawed, MediaFacts, Readable, read_at

MEDIA_TYPE = "video/mp4"

_MAX_BOXES = 100_000
"""More boxes than any video of minutes has: two a fragment, a fragment a second. A walk of 8-byte boxes must end."""
_MAX_MOOV_BYTES = 16 << 20
"""A `moov` past this is not read, and the file's facts stay unknown; that of a minute of video has some 50 KB."""

_U32 = Struct(">I")
_U64 = Struct(">Q")
_HEADER = Struct(">I4s")
_NEEDED = (b"ftyp", b"moov", b"mdat")


class _Box(NamedTuple):
    kind: bytes
    start: int
    """Where its content begins."""
    end: int
    is_open: bool = False
    """Whether it gave no size, and so would look whole however much of it is missing."""


def read_mp4(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole MP4, and read what it says of itself.

    A file that was cut exactly between two boxes, with all that is needed before
    the cut, can't be told from a whole one; the declared length tells that.

    Raises:
        Flawed: Something is missing, or the sizes do not add up.
    """
    boxes = list(_top_level(file, size))
    kinds = {box.kind for box in boxes}
    for kind in _NEEDED:
        if kind not in kinds:
            raise Flawed(f"has no {kind.decode()} box")
    moov = next(box for box in boxes if box.kind == b"moov")
    if moov.end - moov.start > _MAX_MOOV_BYTES:
        return MediaFacts(MEDIA_TYPE)
    film = read_at(file, moov.start, moov.end - moov.start)
    if boxes[-1].kind == b"mdat" and boxes[-1].is_open:
        held = sum(box.end - box.start for box in boxes if box.kind == b"mdat")
        if (needed := _sample_bytes(film)) > held:
            raise Flawed(f"lists {needed} bytes of samples and holds {held}")
    width, height = _dimensions(film)
    return MediaFacts(MEDIA_TYPE, width, height, _duration(film))


def _top_level(file: Readable, size: int) -> Iterator[_Box]:
    """Walk the boxes of a file, which must fill it exactly."""
    offset = 0
    for _ in range(_MAX_BOXES):
        if offset == size:
            return
        header = read_at(file, offset, 16)
        if not offset and not header[4:8].isalnum():
            raise Flawed("does not begin like an MP4 file")
        box = _box(header, 0, offset, size)
        yield box
        offset = box.end
    raise Flawed(f"has more than {_MAX_BOXES} boxes")


def _children(film: bytes, parent: _Box) -> Iterator[_Box]:
    """Walk the boxes inside a box that is in memory."""
    offset = parent.start
    # Eight bytes are the least that a box has; what is shorter is padding that some writers leave.
    while parent.end - offset >= 8:
        box = _box(film, offset, offset, parent.end)
        yield box
        offset = box.end


def _box(data: bytes, at: int, offset: int, limit: int) -> _Box:
    """Read the header that stands at `at` in `data` and at `offset` in the file; it must end at `limit` or before."""
    if len(data) - at < 8:
        raise Flawed(f"ends inside the header of a box, at byte {limit}")
    size, kind = _HEADER.unpack_from(data, at)
    start, is_open = offset + 8, size == 0
    if min(kind) < 0x20:
        raise Flawed(f"has something that is no box at byte {offset}")
    if size == 1:
        if len(data) - at < 16:
            raise Flawed(f"ends inside the header of a box, at byte {limit}")
        size, start = _U64.unpack_from(data, at + 8)[0], offset + 16
    end = limit if is_open else offset + size
    if end < start:
        raise Flawed(f"has a {_name(kind)} box at byte {offset} that is smaller than its own header")
    if end > limit:
        raise Flawed(f"is cut short: its {_name(kind)} box ends at byte {end}, and there are {limit}")
    return _Box(kind, start, end, is_open)


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _find(film: bytes, parent: _Box, *path: bytes) -> _Box | None:
    """Go down a path of box types and return the first that is there."""
    for kind in path:
        for box in _children(film, parent):
            if box.kind == kind:
                parent = box
                break
        else:
            return None
    return parent


def _tracks(film: bytes) -> Iterator[_Box]:
    return (box for box in _children(film, _whole(film)) if box.kind == b"trak")


def _whole(film: bytes) -> _Box:
    return _Box(b"moov", 0, len(film))


def _duration(film: bytes) -> float | None:
    """Read the duration in seconds; a fragmented file may state it in `mehd` alone."""
    header = _find(film, _whole(film), b"mvhd")
    if header is None:
        return None
    long = _is_version_1(film, header)
    units = _number(film, header, 20 if long else 12, _U32)
    if not units:
        return None
    ticks = _number(film, header, 24 if long else 16, _U64 if long else _U32)
    if not ticks or ticks == (2**64 if long else 2**32) - 1:
        fragments = _find(film, _whole(film), b"mvex", b"mehd")
        if fragments is None:
            return None
        ticks = _number(film, fragments, 4, _U64 if _is_version_1(film, fragments) else _U32)
    return round(ticks / units, 3) if ticks else None


def _dimensions(film: bytes) -> tuple[int | None, int | None]:
    """Read width and height of the first video track: as shown, or else as coded."""
    for track in _tracks(film):
        handler = _find(film, track, b"mdia", b"hdlr")
        if handler is None or film[handler.start + 8 : handler.start + 12] != b"vide":
            continue
        shown = _shown_size(film, track)
        if shown is None:
            shown = _coded_size(film, track)
        if shown is not None:
            return shown
    return None, None


def _shown_size(film: bytes, track: _Box) -> tuple[int, int] | None:
    header = _find(film, track, b"tkhd")
    if header is None:
        return None
    matrix = 52 if _is_version_1(film, header) else 40
    # Both are 16.16 fixed point, behind the matrix of nine numbers.
    width = (_number(film, header, matrix + 36, _U32) or 0) >> 16
    height = (_number(film, header, matrix + 40, _U32) or 0) >> 16
    if not width or not height:
        return None
    # A quarter turn has nothing on the diagonal of its matrix.
    is_turned = not _number(film, header, matrix, _U32) and bool(_number(film, header, matrix + 4, _U32))
    return (height, width) if is_turned else (width, height)


def _coded_size(film: bytes, track: _Box) -> tuple[int, int] | None:
    entries = _find(film, track, b"mdia", b"minf", b"stbl", b"stsd")
    if entries is None:
        return None
    # Behind version and count: the first entry's size and type, and 24 bytes into it both sizes in 16 bits.
    both = _number(film, entries, 8 + 8 + 24, _U32) or 0
    return (both >> 16, both & 0xFFFF) if both >> 16 and both & 0xFFFF else None


def _sample_bytes(film: bytes) -> int:
    """Add up what the sample tables say that there is in `mdat`; 0 where they say nothing."""
    total = 0
    for track in _tracks(film):
        table = _find(film, track, b"mdia", b"minf", b"stbl", b"stsz")
        if table is None:
            continue
        common = _number(film, table, 4, _U32) or 0
        count = _number(film, table, 8, _U32) or 0
        listed = film[table.start + 12 : min(table.end, table.start + 12 + 4 * count)]
        whole = len(listed) // 4
        total += common * count if common else sum(Struct(f">{whole}I").unpack_from(listed))
    return total


def _is_version_1(film: bytes, box: _Box) -> bool:
    return box.end > box.start and film[box.start] == 1


def _number(film: bytes, box: _Box, offset: int, form: Struct) -> int | None:
    """Read a number at an offset in a box; None where the box is too short to have it."""
    if box.start + offset + form.size > box.end:
        return None
    number: int = form.unpack_from(film, box.start + offset)[0]
    return number
