"""Media files: read if they are complete, refused if they are not, whatever the bytes are."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.media import InvalidMedia, MediaInfo, read_audio, read_image, read_mp4
from tests.media.samples import (
    FTYP,
    MP3_FRAME,
    ROTATED,
    box,
    chunk,
    jpeg,
    moov,
    mp3,
    mp4,
    mvhd,
    open_box,
    png,
    stsd,
    tkhd,
    track,
    wav,
)

MDAT = box(b"mdat", bytes(100))


def video(content: bytes) -> MediaInfo:
    return read_mp4(BytesIO(content), len(content))


def image(content: bytes) -> MediaInfo:
    return read_image(BytesIO(content), len(content))


def audio(content: bytes) -> MediaInfo:
    return read_audio(BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content",
    [
        FTYP + moov() + MDAT,
        FTYP + MDAT + moov(),
        FTYP + box(b"free", bytes(9)) + MDAT + MDAT + moov(),
        FTYP + moov() + box(b"mdat", bytes(100), wide=True),
        FTYP + moov() + open_box(b"mdat", bytes(100)),
        FTYP + box(b"uuid", bytes(16)) + MDAT + moov(),
        FTYP + box(b"moov", mvhd(5) + box(b"trak", track(tkhd(1280, 720))[8:], wide=True)) + MDAT,
        FTYP + box(b"moov", mvhd(5) + open_box(b"trak", track(tkhd(1280, 720))[8:])) + MDAT,
    ],
    ids=[
        "fast start",
        "index last",
        "two mdat",
        "64-bit size",
        "open end",
        "uuid",
        "64-bit inside",
        "open inside",
    ],
)
def test_a_complete_video_is_read(content: bytes) -> None:
    """Boxes may come in any order and in every way of stating a size."""
    assert MediaInfo("video/mp4", 1280, 720, 5.0, has_sound=False) == video(content)


@pytest.mark.parametrize("padding", [b"\n", bytes(4), bytes(64), b"\r\n--boundary--", b"x" * 1000])
def test_padding_behind_the_last_box_is_no_damage(padding: bytes) -> None:
    """What follows a whole video and is not a box is left alone: players ignore it too."""
    content = FTYP + moov() + MDAT + padding

    assert MediaInfo("video/mp4", 1280, 720, 5.0, has_sound=False) == video(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no ftyp box"),
        (b"<html><body>403 Forbidden</body></html>", "does not start like an MP4 file"),
        (FTYP + MDAT, "has no moov box"),
        (FTYP + moov(), "has no mdat box"),
        (moov() + MDAT, "has no ftyp box"),
        (FTYP + MDAT + moov()[:-1], "is truncated: its moov box"),
        (FTYP + moov() + pack(">I4sQ", 1, b"mdat", 10**12), "is truncated: its mdat box"),
        (FTYP + moov() + pack(">I4sQ", 1, b"mdat", 15), "smaller than its own header"),
        (FTYP + moov() + pack(">I4s", 7, b"mdat"), "smaller than its own header"),
        (FTYP + MDAT + b"\0\0\0", "ends inside the header of a box"),
        (FTYP + MDAT + bytes(8), "has no valid box at byte"),
        (FTYP + moov() + MDAT + pack(">I4s", 500, b"mdat"), "is truncated: its mdat box"),
        (FTYP + moov() + MDAT + pack(">I4s", 500, b"moof"), "is truncated: its moof box"),
        (FTYP + box(b"moov", box(b"free") * 2_000_000) + MDAT, "has more than 10000 boxes in one box"),
        (FTYP + box(b"moov", pack(">I4s", 500, b"trak")) + MDAT, "is truncated: its trak box"),
        (FTYP + box(b"moov", box(bytes(4))) + MDAT, "has no valid box at byte"),
        (FTYP + box(b"free") * 100_001, "has more than 100000 boxes"),
    ],
)
def test_an_incomplete_video_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    """The reason tells what is missing, and hostile sizes neither crash nor hang the reader."""
    with pytest.raises(InvalidMedia, match=reason):
        video(content)


def test_truncation_of_a_box_without_a_size_shows_in_the_sample_table() -> None:
    """An `mdat` that extends to the end looks complete however short it is; the sizes of its samples show it."""
    table = box(b"stsz", pack(">III", 0, 0, 2) + pack(">II", 60, 40))
    content = FTYP + moov(tables=table)

    assert 5.0 == video(content + open_box(b"mdat", bytes(100))).duration_s
    assert 5.0 == video(content + box(b"mdat", bytes(99)) + open_box(b"free", b"")).duration_s
    with pytest.raises(InvalidMedia, match="lists 100 bytes of samples and has 99"):
        video(content + open_box(b"mdat", bytes(99)))


def test_long_headers_are_read() -> None:
    """Version 1 of the headers has 64-bit times, which moves everything behind them."""
    content = box(b"moov", mvhd(7.5, version=1) + track(tkhd(720, 1280, version=1)))

    assert MediaInfo("video/mp4", 720, 1280, 7.5, has_sound=False) == video(FTYP + content + MDAT)


def test_a_rotated_video_counts_upright() -> None:
    """A rotation by 90 degrees in the track's matrix swaps width and height."""
    content = box(b"moov", mvhd(5) + track(tkhd(1280, 720, matrix=ROTATED)))

    assert (720, 1280) == (video(FTYP + content + MDAT).width, video(FTYP + content + MDAT).height)


def test_the_coded_size_replaces_a_missing_one() -> None:
    """A track header may state 0x0; then the sample entry has the size."""
    content = box(b"moov", mvhd(5) + track(tkhd(0, 0), tables=stsd(832, 480)))

    assert (832, 480) == (video(FTYP + content + MDAT).width, video(FTYP + content + MDAT).height)


@pytest.mark.parametrize(
    "header", [mvhd(0), box(b"mvhd", pack(">5I", 0, 0, 0, 1000, 2**32 - 1))], ids=["0", "unknown"]
)
def test_the_duration_of_a_fragmented_video(header: bytes) -> None:
    """With fragments the movie header may state 0 or that it is unknown, and the extends header has the sum."""
    extends = box(b"mvex", box(b"mehd", pack(">II", 0, 5040)))
    content = box(b"moov", header + extends + track(tkhd(1280, 720)))

    assert 5.04 == video(FTYP + content + box(b"moof") + MDAT).duration_s


@pytest.mark.parametrize(
    "headers",
    [b"", box(b"mvhd", bytes(12)) + bytes(4), box(b"trak", track(b"")[8:] + box(b"tkhd", bytes(80)))],
)
def test_what_a_video_does_not_state_is_unknown(headers: bytes) -> None:
    """A `moov` without headers, or with shorter ones, makes a poor video, but one that was paid for."""
    info = video(FTYP + box(b"moov", headers) + MDAT)

    assert ("video/mp4", None, None, None) == (info.media_type, info.width, info.height, info.duration_s)


@pytest.mark.parametrize("content", [mp4(300), FTYP + MDAT + moov()], ids=["mdat last", "moov last"])
def test_no_truncated_video_passes(content: bytes) -> None:
    """A download that was truncated anywhere is never taken for a complete one."""
    for size in range(len(content)):
        with pytest.raises(InvalidMedia):
            video(content[:size])


@pytest.mark.parametrize("content", [png(), jpeg()], ids=["png", "jpeg"])
def test_images_are_read_and_no_truncated_one_passes(content: bytes) -> None:
    """Both formats are recognized by their first bytes, and complete only with their last."""
    assert (64, 48) == (image(content).width, image(content).height)
    for size in range(len(content)):
        with pytest.raises(InvalidMedia):
            image(content[:size])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a", "is neither a PNG nor a JPEG image"),
        (png().replace(b"\0\0\0\x40", b"\0\0\0\x41", 1), "has a damaged IHDR chunk"),
        (png(width=0), "states a size of 0x48 pixels"),
        (png()[:33] + chunk(b"IEND"), "has no image data"),
        (b"\xff\xd8\xff\xd9", "has no image data"),
    ],
)
def test_damaged_images_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    """An image that no viewer would show is not taken for an asset."""
    with pytest.raises(InvalidMedia, match=reason):
        image(content)


def test_a_large_image_is_searched_in_reads() -> None:
    """The end of a large image is found where it straddles two reads."""
    head, tail = jpeg()[:-2], b"\xff\xd9"
    for padding in range(65_536 - 3, 65_536 + 3):
        assert 64 == image(head + b"\x11" * padding + tail).width


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", FTYP, FTYP + MDAT, FTYP + moov()[:60], png()[:20], jpeg()[:25]]),
)
def test_no_bytes_crash_the_readers(noise: bytes, start: bytes) -> None:
    """Bytes from an untrusted host are read or refused, and nothing else."""
    for read in (video, image):
        try:
            info = read(start + noise)
        except InvalidMedia:
            continue
        assert info.media_type


@given(st.data())
def test_no_flipped_bytes_crash_the_readers(data: st.DataObject) -> None:
    """A complete file with damage in it is read or refused."""
    content, read = data.draw(st.sampled_from([(mp4(50), video), (png(), image), (jpeg(), image)]))
    damaged = bytearray(content)
    for offset in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        damaged[offset] = data.draw(st.integers(0, 255))

    try:
        info = read(bytes(damaged))
    except InvalidMedia:
        return
    assert info.media_type


@pytest.mark.parametrize("seconds", [0.5, 3.25])
def test_wav(seconds: float) -> None:
    """The length of a WAV is its bytes by those of a second, whatever other chunks it has."""
    assert MediaInfo("audio/wav", duration_s=seconds) == audio(wav(seconds))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_wav_of_a_stream(size: int) -> None:
    """A WAV that was written before its length was known ends where its file ends."""
    content = wav(2.0)
    at = content.index(b"data")
    content = content[: at + 4] + pack("<I", size) + content[at + 8 :]

    assert 2.0 == audio(content).duration_s


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wav(2.0)[:-1000], "is truncated: its sound ends at byte 16056 of 15056"),
        (wav(2.0)[:30], r"has no sound \(no data chunk\)"),
        (wav(2.0).replace(b"fmt ", b"xxxx"), "has sound before it says how the sound is coded"),
        (b"ID3\4\0\0\0\0\0\0" + bytes(1000), "has no MP3 frames"),
        (b"\xff\xfb\x90\xc4" + bytes(90), "has no MP3 frames"),
        (b"", "has no MP3 frames"),
    ],
)
def test_bad_audio(content: bytes, expected: str) -> None:
    """Audio without sound, or without its end, is not audio."""
    with pytest.raises(InvalidMedia, match=expected):
        audio(content)


def test_mp3() -> None:
    """The length of an MP3 is that of its frames, of any bit rate, between tags and behind junk."""
    frame_s = 1152 / 44100

    assert 10.0 == pytest.approx(audio(mp3(10.0)).duration_s, abs=frame_s)
    other_rate = b"\xff\xfb\xb0\xc4" + bytes(622)
    mixed = MP3_FRAME * 100 + b"junk" * 100 + other_rate * 100 + MP3_FRAME[:50]
    assert 200 * frame_s == pytest.approx(audio(mixed).duration_s, abs=1.1 * frame_s)


@given(st.binary(max_size=300), st.sampled_from([b"", wav(0.1), mp3(0.2)]))
def test_any_audio(content: bytes, rest: bytes) -> None:
    """Whatever the bytes are, audio is read or refused."""
    with suppress(InvalidMedia):
        audio(content + rest)
