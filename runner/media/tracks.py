"""
The boxes of an MP4 file, and what its tracks are: codec, frames per second, and whether there is sound.

A box (ISO/IEC 14496-12) is a 32-bit size, a type of four letters, and the content. A size of 1 means that a 64-bit size
follows the type, a size of 0 that the box extends to the end of the file. Every size is checked against what is there,
and the walk is bounded.

A file has its samples in one piece, with tables in the `moov`, or in fragments, each with a `moof` of its own. These
are facts for the results: where a table makes no sense they are unknown, which does not make the file invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import BinaryIO

from msgspec import Struct as Value

from runner.media.headers import InvalidMedia, read_at

U32 = Struct(">I")
U64 = Struct(">Q")
_header_at = Struct(">I4s").unpack_from

_MAX_CHILDREN = 10_000
"""Of one box inside the `moov`, where a dozen is usual: 2 million empty ones took 1 GB of memory."""

Span = tuple[int, int]
"""The offsets at which the content of a box starts and ends."""

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
            kind, content, after, _ = read_box(data, start, start, end)
        if kind in boxes:
            boxes[kind].append((content, after))
        else:
            boxes[kind] = [(content, after)]
        start = after
        count += 1
        if count > _MAX_CHILDREN:
            raise InvalidMedia(f"has more than {_MAX_CHILDREN} boxes in one box")
    return boxes


def read_box(data: bytes, at: int, offset: int, limit: int) -> tuple[bytes, int, int, bool]:
    """
    Read the box header at `at` in `data`, which is at `offset` in the file; the box must end by `limit`.

    Returns:
        Its type, its span, and whether it states no size, and so looks complete however much of it is missing.
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
    return kind, start, end, not size


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


_MAX_MOOF_BYTES = 1 << 20
"""A larger `moof` is not read; that of a second of video has some hundred bytes."""
_MAX_FRAGMENTS = 10_000
_CODECS = {
    b"avc1": "h264",
    b"avc3": "h264",
    b"hvc1": "hevc",
    b"hev1": "hevc",
    b"av01": "av1",
    b"vp08": "vp8",
    b"vp09": "vp9",
    b"mp4v": "mpeg4",
}
"""Codecs by the type of their sample entries."""
_TIMES = Struct(">2I")
_DEFAULT_DURATION = 0x08
_TFHD_FIELDS = ((0x01, 8), (0x02, 4))
"""By flag, the bytes of the optional fields of a `tfhd` before the default duration."""
_TRUN_FIELDS = (0x01, 0x04)
"""Flags of optional fields of a `trun` before its samples, 4 bytes each."""
_SAMPLE_DURATION = 0x100
_SAMPLE_FIELDS = (0x100, 0x200, 0x400, 0x800)
"""Flags of the fields of each sample of a `trun`, 4 bytes each; the duration is the first."""


class Track(Value):
    """
    A track.

    Attributes:
        handler: ``vide``, ``soun`` or another four letters.
        number: The id by which fragments name it.
        ticks_per_s: In which durations are given.
        samples: Frames of a video; pieces of a sound.
        ticks: Duration of all samples.
    """

    handler: bytes
    number: int
    ticks_per_s: int
    codec: str | None = None
    samples: int = 0
    ticks: int = 0

    @property
    def duration_s(self) -> float | None:
        """In seconds; None if that is unknown."""
        return round(self.ticks / self.ticks_per_s, 3) if self.ticks and self.ticks_per_s else None

    @property
    def samples_per_s(self) -> float | None:
        """Samples per second, on average; None if that is unknown."""
        return round(self.samples * self.ticks_per_s / self.ticks, 3) if self.ticks else None


def read_tracks(
    moov: bytes, children: Boxes, tracks: list[Boxes], file: BinaryIO, fragments: list[Span]
) -> list[Track]:
    """
    Read the tracks of a file, with their fragments if it has any.

    Args:
        moov: The content of its `moov`, with these `children`.
        tracks: What is in each `trak`.
        fragments: The `moof` boxes of the file.

    Returns:
        The tracks; none if the file makes no sense.
    """
    try:
        read = [_read_track(moov, track) for track in tracks]
        if b"mvex" in children:
            _add_fragments(read, _default_durations(moov, children[b"mvex"]), _moofs(file, fragments))
    except InvalidMedia:
        return []
    return read


def _read_track(moov: bytes, track: Boxes) -> Track:
    media = children_of(moov, track.get(b"mdia"))
    tables = tables_of(moov, media)
    samples, ticks = _count_samples(moov, tables.get(b"stts"))
    return Track(
        handler_of(moov, media),
        after_times(moov, track.get(b"tkhd")),
        after_times(moov, media.get(b"mdhd")),
        _codec(moov, tables.get(b"stsd")),
        samples,
        ticks,
    )


def handler_of(moov: bytes, media: Boxes) -> bytes:
    """Return the four letters that name what is in an `mdia`; none if it does not say."""
    if b"hdlr" not in media:
        return b""
    start = media[b"hdlr"][0][0] + 8
    return moov[start : start + 4]


def tables_of(moov: bytes, media: Boxes) -> Boxes:
    """Return the tables of the samples that an `mdia` is about."""
    return children_of(moov, children_of(moov, media.get(b"minf")).get(b"stbl"))


def after_times(moov: bytes, header: list[Span] | None) -> int:
    """Return the number after the two times at the start of a header: a track's id, or its ticks per second."""
    return number(moov, header, 20 if is_version_1(moov, header) else 12)


def _codec(moov: bytes, entries: list[Span] | None) -> str | None:
    """Return the codec of the first sample entry, after version, count and its size."""
    if entries is None:
        return None
    start, end = entries[0]
    kind = moov[start + 12 : min(start + 16, end)]
    return (_CODECS.get(kind) or kind.decode("ascii").lower()) if kind.isalnum() else None


def _count_samples(moov: bytes, times: list[Span] | None) -> tuple[int, int]:
    """Return how many samples a time-to-sample table lists, and their duration in ticks."""
    if times is None:
        return 0, 0
    start, end = times[0]
    count = min(number(moov, times, 4), max(0, end - start - 8) // 8)
    all_samples = all_ticks = 0
    for samples, ticks in _TIMES.iter_unpack(moov[start + 8 : start + 8 + 8 * count]):
        all_samples += samples
        all_ticks += samples * ticks
    return all_samples, all_ticks


def _default_durations(moov: bytes, extends: list[Span]) -> dict[int, int]:
    """Return the default duration of a sample in fragments, by the id of the track."""
    boxes = children_of(moov, extends).get(b"trex", ())
    return {number(moov, [box], 4): number(moov, [box], 12) for box in boxes}


def _moofs(file: BinaryIO, fragments: list[Span]) -> Iterator[bytes]:
    for start, end in fragments[:_MAX_FRAGMENTS]:
        if end - start <= _MAX_MOOF_BYTES:
            yield read_at(file, start, end - start)


def _add_fragments(tracks: list[Track], defaults: dict[int, int], moofs: Iterable[bytes]) -> None:
    by_number = {track.number: track for track in tracks}
    for moof in moofs:
        for traf in children_of(moof, [(0, len(moof))]).get(b"traf", ()):
            boxes = children_of(moof, [traf])
            header = boxes.get(b"tfhd")
            track = by_number.get(number(moof, header, 4))
            if header is None or track is None:
                continue
            default = _fragment_default(moof, header, defaults.get(track.number, 0))
            for run in boxes.get(b"trun", ()):
                samples, ticks = _read_run(moof, run, default)
                track.samples += samples
                track.ticks += ticks


def _fragment_default(moof: bytes, header: list[Span], default: int) -> int:
    flags = number(moof, header, 0)
    if not flags & _DEFAULT_DURATION:
        return default
    return number(moof, header, 8 + sum(size for flag, size in _TFHD_FIELDS if flags & flag))


def _read_run(moof: bytes, run: Span, default: int) -> tuple[int, int]:
    """Return the number of samples of a `trun`, and their duration in ticks."""
    flags, samples = number(moof, [run], 0), number(moof, [run], 4)
    start = run[0] + 8 + 4 * sum(bool(flags & flag) for flag in _TRUN_FIELDS)
    fields = sum(bool(flags & flag) for flag in _SAMPLE_FIELDS)
    if fields:
        samples = min(samples, max(0, run[1] - start) // (4 * fields))
    if not flags & _SAMPLE_DURATION:
        return samples, samples * default
    durations = Struct(f">I{4 * (fields - 1)}x")
    return samples, sum(
        ticks for (ticks,) in durations.iter_unpack(moof[start : start + durations.size * samples])
    )
