"""
The boxes of an MP4 file (ISO/IEC 14496-12): a 32-bit size, a type of four letters, the content.

A size of 1 means that a 64-bit size follows the type, a size of 0 that the box extends to the end of the file. Every
size is checked against what is there, and the walk is bounded.
"""

from __future__ import annotations

from struct import Struct

from runner.media.info import InvalidMedia

U32 = Struct(">I")
U64 = Struct(">Q")
_HEADER = Struct(">I4s")

_MAX_CHILDREN = 10_000
"""Of one box inside the `moov`, where a dozen is usual: 2 million empty ones took 1 GB of memory."""

Box = tuple[bytes, int, int]
"""The type of a box, and the offsets at which its content starts and ends."""


def children_of(data: bytes, start: int, end: int) -> list[Box]:
    """List the boxes in a part of memory."""
    boxes: list[Box] = []
    # A box has at least eight bytes; a shorter rest is padding that some writers leave.
    while end - start >= 8:
        size, kind = _HEADER.unpack_from(data, start)
        if 8 <= size <= end - start and kind.isalnum():
            # The fast path: nearly all boxes, and every small file has a dozen.
            boxes.append((kind, start + 8, start + size))
        else:
            boxes.append(read_box(data, start, start, end)[0])
        start = boxes[-1][2]
        if len(boxes) > _MAX_CHILDREN:
            raise InvalidMedia(f"has more than {_MAX_CHILDREN} boxes in one box")
    return boxes


def read_box(data: bytes, at: int, offset: int, limit: int) -> tuple[Box, bool]:
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
        size, start = U64.unpack_from(data, at + 8)[0], offset + 16
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


def find(data: bytes, boxes: list[Box], *path: bytes) -> Box | None:
    """Return the first box at a path of types, starting from a list of boxes; None if there is none."""
    found: Box | None = None
    for kind in path:
        if found is not None:
            boxes = children_of(data, found[1], found[2])
        for found in boxes:
            if found[0] == kind:
                break
        else:
            return None
    return found


def find_all(data: bytes, parent: Box, kind: bytes) -> list[Box]:
    """Return all boxes of a type inside another box."""
    return [box for box in children_of(data, parent[1], parent[2]) if box[0] == kind]


def is_version_1(data: bytes, box: Box) -> bool:
    """Return whether a box is of version 1, whose times are 64 bits long."""
    return box[2] > box[1] and data[box[1]] == 1


def number(data: bytes, box: Box, offset: int, form: Struct) -> int | None:
    """Return the number at an offset in a box; None if the box is too short."""
    if box[1] + offset + form.size > box[2]:
        return None
    value: int = form.unpack_from(data, box[1] + offset)[0]
    return value
