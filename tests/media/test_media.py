"""What a media file says of itself: read where it is whole, refused where it is not, whatever the bytes are."""

from __future__ import annotations

from io import BytesIO
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.media import InvalidMedia, MediaFacts, read_mp4, read_picture
from tests.media.samples import (
    FTYP,
    TURNED,
    box,
    chunk,
    jpeg,
    moov,
    mp4,
    mvhd,
    open_box,
    png,
    stsd,
    tkhd,
    track,
)

MDAT = box(b"mdat", bytes(100))


def video(content: bytes) -> MediaFacts:
    return read_mp4(BytesIO(content), len(content))


def picture(content: bytes) -> MediaFacts:
    return read_picture(BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content",
    [
        FTYP + moov() + MDAT,
        FTYP + MDAT + moov(),
        FTYP + box(b"free", bytes(9)) + MDAT + MDAT + moov(),
        FTYP + moov() + box(b"mdat", bytes(100), wide=True),
        FTYP + moov() + open_box(b"mdat", bytes(100)),
        FTYP + box(b"uuid", bytes(16)) + MDAT + moov(),
    ],
    ids=["fast start", "index last", "two mdat", "64-bit size", "open end", "uuid"],
)
def test_a_whole_video_is_read(content: bytes) -> None:
    """Boxes may come in any order and in every way of stating a size."""
    assert MediaFacts("video/mp4", 1280, 720, 5.0) == video(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no ftyp box"),
        (b"<html><body>403 Forbidden</body></html>", "does not begin like an MP4 file"),
        (FTYP + MDAT, "has no moov box"),
        (FTYP + moov(), "has no mdat box"),
        (moov() + MDAT, "has no ftyp box"),
        (FTYP + MDAT + moov()[:-1], "is cut short: its moov box"),
        (FTYP + moov() + pack(">I4sQ", 1, b"mdat", 10**12), "is cut short: its mdat box"),
        (FTYP + moov() + pack(">I4sQ", 1, b"mdat", 15), "smaller than its own header"),
        (FTYP + moov() + pack(">I4s", 7, b"mdat"), "smaller than its own header"),
        (FTYP + moov() + MDAT + b"\0\0\0", "ends inside the header of a box"),
        (FTYP + moov() + MDAT + bytes(8), "something that is no box"),
        (FTYP + box(b"moov", pack(">I4s", 500, b"trak")) + MDAT, "is cut short: its trak box"),
        (FTYP + box(b"free") * 100_001, "has more than 100000 boxes"),
    ],
)
def test_a_video_that_is_not_whole_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    """What is missing is said, and hostile sizes neither crash nor hang the reader."""
    with pytest.raises(InvalidMedia, match=reason):
        video(content)


def test_a_cut_of_a_box_without_a_size_is_seen_in_the_sample_table() -> None:
    """An `mdat` that runs to the end looks whole however short it is; the sizes of its samples tell."""
    table = box(b"stsz", pack(">III", 0, 0, 2) + pack(">II", 60, 40))
    film = FTYP + moov(tables=table)

    assert video(film + open_box(b"mdat", bytes(100))).duration_s == 5.0
    with pytest.raises(InvalidMedia, match="lists 100 bytes of samples and holds 99"):
        video(film + open_box(b"mdat", bytes(99)))


def test_long_headers_are_read() -> None:
    """Version 1 of the headers has 64-bit times, which moves everything behind them."""
    film = box(b"moov", mvhd(7.5, version=1) + track(tkhd(720, 1280, version=1)))

    assert MediaFacts("video/mp4", 720, 1280, 7.5) == video(FTYP + film + MDAT)


def test_a_video_stored_on_its_side_counts_upright() -> None:
    """A quarter turn in the track's matrix swaps what a viewer sees."""
    film = box(b"moov", mvhd(5) + track(tkhd(1280, 720, matrix=TURNED)))

    assert (video(FTYP + film + MDAT).width, video(FTYP + film + MDAT).height) == (720, 1280)


def test_the_coded_size_stands_in_for_a_missing_one() -> None:
    """A track header may say 0x0; the sample entry then knows."""
    film = box(b"moov", mvhd(5) + track(tkhd(0, 0), tables=stsd(832, 480)))

    assert (video(FTYP + film + MDAT).width, video(FTYP + film + MDAT).height) == (832, 480)


def test_a_fragmented_video_states_its_duration_elsewhere() -> None:
    """With fragments the movie header may say 0, and the extends header has the sum."""
    extends = box(b"mvex", box(b"mehd", pack(">II", 0, 5040)))
    film = box(b"moov", mvhd(0) + extends + track(tkhd(1280, 720)))

    assert video(FTYP + film + box(b"moof") + MDAT).duration_s == 5.04


def test_facts_that_a_video_does_not_state_are_unknown() -> None:
    """An index without headers makes a poor video, and still one that was paid for."""
    assert MediaFacts("video/mp4") == video(FTYP + box(b"moov") + MDAT)


@pytest.mark.parametrize("content", [mp4(300), FTYP + MDAT + moov()], ids=["mdat last", "moov last"])
def test_no_beginning_of_a_video_passes_for_the_whole(content: bytes) -> None:
    """A download that was cut anywhere is never taken for a finished one."""
    for size in range(len(content)):
        with pytest.raises(InvalidMedia):
            video(content[:size])


@pytest.mark.parametrize("content", [png(), jpeg()], ids=["png", "jpeg"])
def test_pictures_are_read_and_no_beginning_of_one_passes_for_the_whole(content: bytes) -> None:
    """Both kinds of last frame are known by their first bytes and whole only with their last."""
    assert (picture(content).width, picture(content).height) == (64, 48)
    for size in range(len(content)):
        with pytest.raises(InvalidMedia):
            picture(content[:size])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a", "is neither a PNG nor a JPEG picture"),
        (png().replace(b"\0\0\0\x40", b"\0\0\0\x41", 1), "has a damaged IHDR chunk"),
        (png(width=0), "says that it is 0x48 pixels"),
        (png()[:33] + chunk(b"IEND"), "has no picture in it"),
        (b"\xff\xd8\xff\xd9", "has no picture in it"),
    ],
)
def test_damaged_pictures_are_refused_with_the_reason(content: bytes, reason: str) -> None:
    """A picture that no viewer would show is not taken for an asset."""
    with pytest.raises(InvalidMedia, match=reason):
        picture(content)


def test_a_picture_is_searched_in_pieces() -> None:
    """The end of a large picture is found where it straddles two pieces that are read one after the other."""
    head, tail = jpeg()[:-2], b"\xff\xd9"
    for padding in range(65_536 - 3, 65_536 + 3):
        assert picture(head + b"\x11" * padding + tail).width == 64


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", FTYP, FTYP + MDAT, FTYP + moov()[:60], png()[:20], jpeg()[:25]]),
)
def test_no_bytes_crash_the_readers(noise: bytes, start: bytes) -> None:
    """Bytes from an untrusted host are facts or a reason, and nothing else."""
    for read in (video, picture):
        try:
            facts = read(start + noise)
        except InvalidMedia:
            continue
        assert facts.media_type


@given(st.data())
def test_no_flipped_bytes_crash_the_readers(data: st.DataObject) -> None:
    """A whole file with damage in it is read or refused as well."""
    content, read = data.draw(st.sampled_from([(mp4(50), video), (png(), picture), (jpeg(), picture)]))
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))

    try:
        facts = read(bytes(damaged))
    except InvalidMedia:
        return
    assert facts.media_type
