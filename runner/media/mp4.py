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

from struct import Struct

from runner.media.facts import InvalidMedia, MediaFacts, Readable, read_at

MEDIA_TYPE = "video/mp4"

_MAX_BOXES = 100_000
"""More boxes than any video of minutes has: two a fragment, a fragment a second. A walk of 8-byte boxes must end."""
_MAX_MOOV_BYTES = 16 << 20
"""A `moov` past this is not read, and the file's facts stay unknown; that of a minute of video has some 50 KB."""

_U32 = Struct(">I")
_U64 = Struct(">Q")
_HEADER = Struct(">I4s")
_NEEDED = (b"ftyp", b"moov", b"mdat")


_Box = tuple[bytes, int, int]
"""The type of a box, and where its content begins and ends."""


def read_mp4(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole MP4, and read what it says of itself.

    A file that was cut exactly between two boxes, with all that is needed before
    the cut, can't be told from a whole one; the declared length tells that.

    Raises:
        InvalidMedia: Something is missing, or the sizes do not add up.
    """
    boxes, is_open = _top_level(file, size)
    kinds = {kind for kind, _, _ in boxes}
    for kind in _NEEDED:
        if kind not in kinds:
            raise InvalidMedia(f"has no {kind.decode()} box")
    _, start, end = next(box for box in boxes if box[0] == b"moov")
    if end - start > _MAX_MOOV_BYTES:
        return MediaFacts(MEDIA_TYPE)
    film = read_at(file, start, end - start)
    parts = _children(film, 0, len(film))
    tracks = [_children(film, start, end) for kind, start, end in parts if kind == b"trak"]
    if is_open and boxes[-1][0] == b"mdat":
        held = sum(end - start for kind, start, end in boxes if kind == b"mdat")
        if (needed := sum(_sample_bytes(film, track) for track in tracks)) > held:
            raise InvalidMedia(f"lists {needed} bytes of samples and holds {held}")
    width, height = _dimensions(film, tracks)
    return MediaFacts(MEDIA_TYPE, width, height, _duration(film, parts))


def _top_level(file: Readable, size: int) -> tuple[list[_Box], bool]:
    """Walk the boxes of a file, which must fill it exactly; says also whether the last one gave no size."""
    boxes: list[_Box] = []
    offset, is_open = 0, False
    while offset < size:
        if len(boxes) == _MAX_BOXES:
            raise InvalidMedia(f"has more than {_MAX_BOXES} boxes")
        header = read_at(file, offset, 16)
        if not offset and not header[4:8].isalnum():
            raise InvalidMedia("does not begin like an MP4 file")
        box, is_open = _box(header, 0, offset, size)
        boxes.append(box)
        offset = box[2]
    return boxes, is_open


def _children(film: bytes, start: int, end: int) -> list[_Box]:
    """List the boxes inside a box that is in memory."""
    boxes: list[_Box] = []
    # Eight bytes are the least that a box has; what is shorter is padding that some writers leave.
    while end - start >= 8:
        size, kind = _HEADER.unpack_from(film, start)
        if 8 <= size <= end - start and kind.isalnum():
            # Nearly all of them, and every small file has a dozen.
            boxes.append((kind, start + 8, start + size))
        else:
            boxes.append(_box(film, start, start, end)[0])
        start = boxes[-1][2]
    return boxes


def _box(data: bytes, at: int, offset: int, limit: int) -> tuple[_Box, bool]:
    """
    Read the header that stands at `at` in `data` and at `offset` in the file; the box must end by `limit`.

    Says also whether the box gave no size, and so looks whole however much of it is missing.
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
        raise InvalidMedia(f"has something that is no box at byte {offset}")
    if end < start:
        raise InvalidMedia(f"has a {_name(kind)} box at byte {offset} that is smaller than its own header")
    if end > limit:
        raise InvalidMedia(f"is cut short: its {_name(kind)} box ends at byte {end}, and there are {limit}")
    return (kind, start, end), not size


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _find(film: bytes, boxes: list[_Box], *path: bytes) -> _Box | None:
    """Go down a path of box types, from a list of boxes, and give the first that is there."""
    found: _Box | None = None
    for kind in path:
        if found is not None:
            boxes = _children(film, found[1], found[2])
        for found in boxes:
            if found[0] == kind:
                break
        else:
            return None
    return found


def _duration(film: bytes, parts: list[_Box]) -> float | None:
    """Read the duration in seconds; a fragmented file may state it in `mehd` alone."""
    header = _find(film, parts, b"mvhd")
    if header is None:
        return None
    is_long = _is_version_1(film, header)
    units = _number(film, header, 20 if is_long else 12, _U32)
    if not units:
        return None
    ticks = _number(film, header, 24 if is_long else 16, _U64 if is_long else _U32)
    if not ticks or ticks == (2**64 if is_long else 2**32) - 1:
        fragments = _find(film, parts, b"mvex", b"mehd")
        if fragments is None:
            return None
        ticks = _number(film, fragments, 4, _U64 if _is_version_1(film, fragments) else _U32)
    return round(ticks / units, 3) if ticks else None


def _dimensions(film: bytes, tracks: list[list[_Box]]) -> tuple[int | None, int | None]:
    """Read width and height of the first video track: as shown, or else as coded."""
    for track in tracks:
        handler = _find(film, track, b"mdia", b"hdlr")
        if handler is None or film[handler[1] + 8 : handler[1] + 12] != b"vide":
            continue
        sizes = _shown_size(film, track) or _coded_size(film, track)
        if sizes is not None:
            return sizes
    return None, None


def _shown_size(film: bytes, track: list[_Box]) -> tuple[int, int] | None:
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


def _coded_size(film: bytes, track: list[_Box]) -> tuple[int, int] | None:
    entries = _find(film, track, b"mdia", b"minf", b"stbl", b"stsd")
    if entries is None:
        return None
    # Behind version and count: the first entry's size and type, and 24 bytes into it both sizes in 16 bits.
    both = _number(film, entries, 8 + 8 + 24, _U32) or 0
    return (both >> 16, both & 0xFFFF) if both >> 16 and both & 0xFFFF else None


def _sample_bytes(film: bytes, track: list[_Box]) -> int:
    """Add up what a track's sample table says that there is in `mdat`; 0 where it says nothing."""
    table = _find(film, track, b"mdia", b"minf", b"stbl", b"stsz")
    if table is None:
        return 0
    _, start, end = table
    common = _number(film, table, 4, _U32) or 0
    count = _number(film, table, 8, _U32) or 0
    if common:
        return common * count
    listed = film[start + 12 : min(end, start + 12 + 4 * count)]
    return sum(Struct(f">{len(listed) // 4}I").unpack_from(listed))


def _is_version_1(film: bytes, box: _Box) -> bool:
    return box[2] > box[1] and film[box[1]] == 1


def _number(film: bytes, box: _Box, offset: int, form: Struct) -> int | None:
    """Read a number at an offset in a box; None where the box is too short to have it."""
    if box[1] + offset + form.size > box[2]:
        return None
    number: int = form.unpack_from(film, box[1] + offset)[0]
    return number
