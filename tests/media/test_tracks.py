"""Codec, frames per second and sound of a video, in one piece or in fragments, whoever wrote it."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.media import InvalidMedia, MediaInfo, read_mp4
from tests.media.samples import FTYP, box, mvhd, tkhd
from tests.media.samples import track as track_with

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
PICTURES = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=2"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=2"]


def video(content: bytes) -> MediaInfo:
    return read_mp4(BytesIO(content), len(content))


def track(number: int, handler: bytes, entry: bytes, ticks_per_s: int, times: bytes) -> bytes:
    """Return a track with a table of times, which is empty in a file of fragments."""
    header = tkhd(64, 48)
    header = header[:20] + pack(">I", number) + header[24:]
    table = box(b"stbl", box(b"stsd", pack(">II", 0, 1) + box(entry, bytes(78))) + box(b"stts", times))
    media = box(b"mdhd", pack(">5I", 0, 0, 0, ticks_per_s, 0)) + box(b"hdlr", bytes(8) + handler + bytes(12))
    return box(b"trak", header + box(b"mdia", media + box(b"minf", table)))


def fragment(number: int, header: bytes, *runs: bytes) -> bytes:
    """Return a `moof` with one track, whose `tfhd` begins with these flags and ends with these fields."""
    tfhd = box(b"tfhd", header[:4] + pack(">I", number) + header[4:])
    return box(b"moof", box(b"traf", tfhd + b"".join(box(b"trun", run) for run in runs)))


EMPTY = pack(">II", 0, 0)
TABLE = pack(">IIIIII", 0, 2, 40, 1000, 10, 2000)
TABLE_OF_9 = pack(">IIIIII", 0, 9, 40, 1000, 10, 2000)
MDAT = box(b"mdat", bytes(100))
PIECES = box(
    b"moov", mvhd(0) + track(1, b"vide", b"hvc1", 24_000, TABLE) + track(2, b"soun", b"mp4a", 8000, EMPTY)
)
EXTENDS = box(
    b"mvex", box(b"trex", pack(">6I", 0, 1, 1, 1000, 0, 0)) + box(b"trex", pack(">6I", 0, 2, 1, 0, 0, 0))
)
FRAGMENTED = box(
    b"moov",
    mvhd(0) + track(1, b"vide", b"avc1", 24_000, EMPTY) + track(2, b"soun", b"mp4a", 8000, EMPTY) + EXTENDS,
)
DEFAULTS = fragment(1, pack(">I", 0x20000), pack(">IIi", 0x1, 24, 8))
OWN_DEFAULT = fragment(1, pack(">IQII", 0x0B, 0, 1, 2000), pack(">II", 0, 12))
EACH_FRAME = fragment(1, pack(">I", 0), pack(">II6I", 0x301, 2, 0, 500, 9, 1500, 9, 0))
OTHER_TRACK = fragment(9, pack(">I", 0), pack(">II", 0, 1000))
HEARD = fragment(2, pack(">II", 0x08, 1024), pack(">II", 0, 10))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FTYP + PIECES + MDAT, (2.5, "hevc", 20.0, False)),
        (FTYP + PIECES.replace(TABLE, TABLE_OF_9) + MDAT, (2.5, "hevc", 20.0, False)),
        (FTYP + FRAGMENTED + DEFAULTS + MDAT, (1.0, "h264", 24.0, False)),
        (FTYP + FRAGMENTED + DEFAULTS + MDAT + OWN_DEFAULT + MDAT, (2.0, "h264", 18.0, False)),
        (FTYP + FRAGMENTED + EACH_FRAME + MDAT, (0.083, "h264", 24.0, False)),
        (FTYP + FRAGMENTED + DEFAULTS + OTHER_TRACK + MDAT, (1.0, "h264", 24.0, False)),
        (FTYP + FRAGMENTED + DEFAULTS + HEARD + MDAT, (1.0, "h264", 24.0, True)),
    ],
    ids=[
        "one piece",
        "fewer entries than stated",
        "defaults of the file",
        "of a fragment",
        "each frame",
        "unknown track",
        "sound",
    ],
)
def test_tracks_are_read_in_one_piece_and_in_fragments(
    content: bytes, expected: tuple[float, str, float, bool]
) -> None:
    """Durations come from a table, from each sample, or from a default; a track without samples is not sound."""
    info = video(content)

    assert expected == (info.duration_s, info.codec, info.fps, info.has_sound)


@pytest.mark.parametrize(
    "content",
    [
        FTYP + box(b"moov", mvhd(5) + track_with(tkhd(64, 48), tables=pack(">I4s", 999, b"stts"))) + MDAT,
        FTYP + FRAGMENTED + box(b"moof", pack(">I4s", 999, b"traf")) + MDAT,
        FTYP + FRAGMENTED + fragment(1, pack(">I", 0), pack(">II", 0xF00, 2**32 - 1)) + MDAT,
    ],
    ids=["table", "fragment", "count"],
)
def test_tracks_that_make_no_sense_are_unknown(content: bytes) -> None:
    """A video that is complete is not refused for a damaged table: it may play all the same."""
    assert video(content).fps is None


@given(st.data())
def test_no_flipped_bytes_crash_the_reader(data: st.DataObject) -> None:
    """A file of fragments with damage in it is read or refused."""
    content = FTYP + FRAGMENTED + DEFAULTS + EACH_FRAME + OWN_DEFAULT + HEARD + MDAT
    damaged = bytearray(content)
    for offset in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        damaged[offset] = data.draw(st.integers(0, 255))

    try:
        info = video(bytes(damaged))
    except InvalidMedia:
        return
    assert info.media_type


@needs_ffmpeg
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([*SOUND, "-c:v", "libx264", "-c:a", "aac"], (2.0, "h264", 25.0, True)),
        (["-c:v", "libx264", "-r", "30000/1001"], (2.002, "h264", 29.97, False)),
        (["-c:v", "mpeg4", "-movflags", "frag_every_frame+empty_moov"], (2.0, "mpeg4", 25.0, False)),
        (
            [*SOUND, "-c:v", "libx264", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
            (2.0, "h264", 25.0, True),
        ),
        (
            [*SOUND, "-c:v", "libx264", "-movflags", "dash+delay_moov", "-frag_duration", "500000"],
            (2.0, "h264", 25.0, True),
        ),
    ],
    ids=["plain", "NTSC", "every frame", "key frames", "dash"],
)
def test_files_of_ffmpeg_are_read(
    options: list[str], expected: tuple[float, str, float, bool], tmp_path: Path
) -> None:
    """What a writer that nobody here wrote says of its files is what is read, in one piece and in fragments."""
    path = tmp_path / "video.mp4"
    subprocess.run(["ffmpeg", "-v", "error", *PICTURES, *options, path], check=True)

    info = video(path.read_bytes())

    assert (320, 240, *expected[1:]) == (info.width, info.height, info.codec, info.fps, info.has_sound)
    assert info.duration_s == pytest.approx(expected[0], abs=0.05)
