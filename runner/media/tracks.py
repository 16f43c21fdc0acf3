"""
What the tracks of an MP4 file are: codec, frames per second, and whether there is sound (ISO/IEC 14496-12).

A file has its samples in one piece, with tables in the `moov`, or in fragments, each with a `moof` of its own. These
are facts for the results: where a table makes no sense they are unknown, and the file is no worse for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct, iter_unpack
from typing import BinaryIO

from msgspec import Struct as Value

from runner.media.boxes import U32, Box, children_of, find, find_all, is_version_1, number
from runner.media.info import InvalidMedia, read_at

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


def read_tracks(moov: bytes, children: list[Box], file: BinaryIO, boxes: list[Box]) -> list[Track]:
    """
    Read the tracks of a file, with their fragments if it has any.

    Args:
        moov: The content of its `moov`, with these `children`.
        boxes: All boxes of the file.

    Returns:
        The tracks; none if the file makes no sense.
    """
    try:
        tracks = [
            _read_track(moov, children_of(moov, start, end))
            for kind, start, end in children
            if kind == b"trak"
        ]
        if (extends := find(moov, children, b"mvex")) is not None:
            _add_fragments(tracks, _default_durations(moov, extends), _moofs(file, boxes))
    except InvalidMedia:
        return []
    return tracks


def _read_track(moov: bytes, track: list[Box]) -> Track:
    media = find(moov, track, b"mdia")
    media_boxes = [] if media is None else children_of(moov, media[1], media[2])
    table = find(moov, media_boxes, b"minf", b"stbl")
    table_boxes = [] if table is None else children_of(moov, table[1], table[2])
    samples, ticks = _count_samples(moov, find(moov, table_boxes, b"stts"))
    handler = find(moov, media_boxes, b"hdlr")
    return Track(
        b"" if handler is None else moov[handler[1] + 8 : handler[1] + 12],
        _after_times(moov, find(moov, track, b"tkhd")),
        _after_times(moov, find(moov, media_boxes, b"mdhd")),
        _codec(moov, find(moov, table_boxes, b"stsd")),
        samples,
        ticks,
    )


def _after_times(moov: bytes, header: Box | None) -> int:
    """Return the number after the two times at the start of a header: a track's id, or its ticks per second."""
    if header is None:
        return 0
    return number(moov, header, 20 if is_version_1(moov, header) else 12, U32) or 0


def _codec(moov: bytes, entries: Box | None) -> str | None:
    """Return the codec of the first sample entry, after version, count and its size."""
    kind = b"" if entries is None else moov[entries[1] + 12 : min(entries[1] + 16, entries[2])]
    if not kind.isalnum():
        return None
    return _CODECS.get(kind, kind.decode("ascii").lower())


def _count_samples(moov: bytes, times: Box | None) -> tuple[int, int]:
    """Return how many samples a time-to-sample table lists, and their duration in ticks."""
    if times is None:
        return 0, 0
    _, start, end = times
    count = min(number(moov, times, 4, U32) or 0, max(0, end - start - 8) // 8)
    pairs = list(iter_unpack(">2I", moov[start + 8 : start + 8 + 8 * count]))
    return sum(samples for samples, _ in pairs), sum(samples * ticks for samples, ticks in pairs)


def _default_durations(moov: bytes, extends: Box) -> dict[int, int]:
    """Return the default duration of a sample in fragments, by the id of the track."""
    boxes = find_all(moov, extends, b"trex")
    return {number(moov, box, 4, U32) or 0: number(moov, box, 12, U32) or 0 for box in boxes}


def _moofs(file: BinaryIO, boxes: list[Box]) -> Iterator[bytes]:
    fragments = [(start, end) for kind, start, end in boxes if kind == b"moof"]
    for start, end in fragments[:_MAX_FRAGMENTS]:
        if end - start <= _MAX_MOOF_BYTES:
            yield read_at(file, start, end - start)


def _add_fragments(tracks: list[Track], defaults: dict[int, int], moofs: Iterable[bytes]) -> None:
    by_number = {track.number: track for track in tracks}
    for moof in moofs:
        for traf in find_all(moof, (b"moof", 0, len(moof)), b"traf"):
            header = find(moof, children_of(moof, traf[1], traf[2]), b"tfhd")
            track = None if header is None else by_number.get(number(moof, header, 4, U32) or 0)
            if header is None or track is None:
                continue
            default = _fragment_default(moof, header, defaults.get(track.number, 0))
            for run in find_all(moof, traf, b"trun"):
                samples, ticks = _read_run(moof, run, default)
                track.samples += samples
                track.ticks += ticks


def _fragment_default(moof: bytes, header: Box, default: int) -> int:
    flags = number(moof, header, 0, U32) or 0
    if not flags & _DEFAULT_DURATION:
        return default
    return number(moof, header, 8 + sum(size for flag, size in _TFHD_FIELDS if flags & flag), U32) or 0


def _read_run(moof: bytes, run: Box, default: int) -> tuple[int, int]:
    """Return the number of samples of a `trun`, and their duration in ticks."""
    flags, samples = number(moof, run, 0, U32) or 0, number(moof, run, 4, U32) or 0
    start = run[1] + 8 + 4 * sum(bool(flags & flag) for flag in _TRUN_FIELDS)
    fields = sum(bool(flags & flag) for flag in _SAMPLE_FIELDS)
    if fields:
        samples = min(samples, max(0, run[2] - start) // (4 * fields))
    if not flags & _SAMPLE_DURATION:
        return samples, samples * default
    durations = Struct(f">I{4 * (fields - 1)}x")
    return samples, sum(
        ticks for (ticks,) in durations.iter_unpack(moof[start : start + durations.size * samples])
    )
