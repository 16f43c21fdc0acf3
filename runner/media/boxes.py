"""
The boxes of an MP4 file (ISO/IEC 14496-12): a 32-bit size, a type of four letters, the content.

A size of 1 means that a 64-bit size follows the type, a size of 0 that the box extends to the end of the file. Every
size is checked against what is there, and the walk is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from runner.media.info import InvalidMedia

U32 = Struct(">I")
U64 = Struct(">Q")
_header_at = Struct(">I4s").unpack_from

_MAX_CHILDREN = 10_000
"""Of one box inside the `moov`, where a dozen is usual: 2 million empty ones took 1 GB of memory."""

Span = tuple[int, int]
"""The offsets at which the content of a box starts and ends."""

Box = tuple[bytes, int, int]
"""The type of a box, and its span."""

Boxes = dict[bytes, list[Span]]
"""Boxes by type; those of one type are in their order, and the first of them counts where only one makes sense."""


def children_of(data: bytes, parents: Sequence[Span] | None) -> Boxes:
    """Return the boxes inside the first of some boxes of a type; none if there is none of the type."""
    boxes: Boxes = {}
    start, end = parents[0] if parents else (0, 0)
    count = 0
    # A box has at least eight bytes; a shorter rest is padding that some writers leave.
    while start <= end - 8:
        size, kind = _header_at(data, start)
        content, after = start + 8, start + size
        if size < 8 or after > end or not kind.isalnum():
            # Nearly all boxes are read by now, and every small file has a dozen.
            (kind, content, after), _ = read_box(data, start, start, end)
        if kind in boxes:
            boxes[kind].append((content, after))
        else:
            boxes[kind] = [(content, after)]
        start = after
        count += 1
        if count > _MAX_CHILDREN:
            raise InvalidMedia(f"has more than {_MAX_CHILDREN} boxes in one box")
    return boxes


def read_box(data: bytes, at: int, offset: int, limit: int) -> tuple[Box, bool]:
    """
    Read the box header at `at` in `data`, which is at `offset` in the file; the box must end by `limit`.

    Also return whether the box states no size, and so looks complete however much of it is missing.
    """
    if len(data) - at < 8:
        raise InvalidMedia(f"ends inside the header of a box, at byte {limit}")
    size, kind = _header_at(data, at)
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


def is_version_1(data: bytes, boxes: Sequence[Span] | None) -> bool:
    """Return whether the first of some boxes is of version 1, whose times are 64 bits long."""
    if not boxes:
        return False
    start, end = boxes[0]
    return start < end and data[start] == 1


def number(data: bytes, boxes: Sequence[Span] | None, offset: int, form: Struct = U32) -> int:
    """Return the number at an offset in the first of some boxes; 0 if there is none, or if it is too short."""
    if not boxes:
        return 0
    start, end = boxes[0]
    if start + offset + form.size > end:
        return 0
    value: int = form.unpack_from(data, start + offset)[0]
    return value
