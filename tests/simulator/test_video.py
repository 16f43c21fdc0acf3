"""Videos and pictures: whole, of the asked size and length, different from job to job."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.simulator import media_writer
from runner.simulator.video import MediaBody, last_frame, video, video_spec

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffmpeg is not installed")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def film(text: str = "a job", **request: Any) -> Any:
    return video_spec({"model": "seedance-1-5-pro-251215", **request}, digest(text))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"size": "720p", "ratio": "16:9", "seconds": "5"}, (1280, 720, 5)),
        ({"size": "720P", "seconds": "2"}, (1280, 720, 2)),
        ({"size": "480p"}, (854, 480, 5)),
        ({"size": "1080P"}, (1920, 1080, 5)),
        ({"size": "720p", "ratio": "9:16"}, (720, 1280, 5)),
        ({"size": "720p", "ratio": "1:1"}, (720, 720, 5)),
        ({"size": "720p", "ratio": "4:3"}, (960, 720, 5)),
        ({"size": "720p", "ratio": "3:4"}, (720, 960, 5)),
        ({"size": "720p", "ratio": "21:9"}, (1680, 720, 5)),
        ({"size": "720p", "ratio": "adaptive"}, (1280, 720, 5)),
        ({"size": "720p", "ratio": "99:0"}, (1280, 720, 5)),
        ({"model": "seedance-1-5-pro-251215"}, (1280, 720, 5)),
        ({"model": "seedance-1-0-pro-250528"}, (1920, 1080, 5)),
        ({"model": "wan2.2-kf2v-flash"}, (1280, 720, 5)),
        ({"model": "wan2.7-i2v"}, (1920, 1080, 5)),
    ],
)
def test_a_video_has_the_size_and_length_that_were_asked_for(
    request_: dict[str, str], expected: tuple[int, int, int]
) -> None:
    """Size, ratio and seconds decide; the model's documented default stands in for a size that is absent."""
    made = video_spec(request_, digest("x"))

    assert expected == (made.width, made.height, made.seconds)


def test_the_model_may_choose_the_length() -> None:
    """Seconds of -1 give a length from 4 to 12, and the same one for the same request."""
    lengths = {film(str(number), seconds="-1").seconds for number in range(200)}

    assert set(range(4, 13)) == lengths


def test_jobs_differ_and_one_job_does_not() -> None:
    """Every job's video is its own, as a picture too; the same request always gives the same bytes."""
    videos = {video(film(str(number), size="480p"))[:] for number in range(50)}
    pictures = {last_frame(film(str(number), size="480p"))[:] for number in range(50)}

    assert 50 == len(videos) == len(pictures)
    assert video(film("a"))[:] == video(film("a"))[:]


def test_a_video_is_small_and_can_be_padded() -> None:
    """Tens of kilobytes, or exactly as many bytes as a scenario asks for, without holding them in memory."""
    plain = video(film(size="1080p", seconds="12"))
    padded = video(film(), size=10**12)

    assert plain.size < 60_000
    assert padded.size == 10**12
    assert len(padded.head) < 60_000
    assert bytes(5) == padded[10**12 - 5 : 10**12]


def test_moov_stands_first_unless_asked_otherwise() -> None:
    """The order of the boxes can be turned round, and moov left out."""
    made = film()

    assert boxes(video(made)[:]) == ["ftyp", "moov", "mdat", "free"]
    assert boxes(video(made, moov_first=False)[:]) == ["ftyp", "mdat", "moov", "free"]
    assert boxes(video(made, with_moov=False)[:]) == ["ftyp", "mdat", "free"]


def boxes(data: bytes) -> list[str]:
    """Name the boxes of the top level, which must fill the file exactly."""
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        names.append(data[at + 4 : at + 8].decode())
        at += size
    assert at == len(data)
    return names


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 80), st.integers(0, 80))
def test_a_padded_body_is_cut_like_bytes(head: bytes, padding: int, start: int, stop: int) -> None:
    """Any slice of a body is that of its bytes written out."""
    written_out = head + bytes(padding)

    assert written_out[start:stop] == MediaBody(head, len(written_out))[start:stop]


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=60).map(bytes))
def test_no_payload_imitates_a_start_code(payload: bytes) -> None:
    """After escaping there is no 00 00 followed by 00, 01 or 02, and taking the escapes out gives the payload back."""
    escaped = media_writer._escaped(payload)

    assert not any(escaped[at : at + 2] == b"\0\0" and escaped[at + 2] < 3 for at in range(len(escaped) - 2))
    assert payload == unescaped(escaped)


def unescaped(data: bytes) -> bytes:
    plain, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        plain.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(plain)


@needs_ffmpeg
@pytest.mark.parametrize(
    "asked",
    [
        {"size": "720p", "ratio": "16:9", "seconds": "5"},
        {"size": "480p", "ratio": "9:16", "seconds": "2"},
        {"size": "1080p", "ratio": "21:9", "seconds": "2"},
        {"size": "480p", "ratio": "1:1", "seconds": "3"},
    ],
)
def test_ffmpeg_decodes_every_frame_without_a_complaint(asked: dict[str, str], tmp_path: Path) -> None:
    """A decoder that nobody here wrote finds the size, the length and all frames, in a valid stream."""
    made = film(**asked)
    path = tmp_path / "video.mp4"
    path.write_bytes(video(made, moov_first=asked["seconds"] != "3")[:])

    shown = run(
        "ffprobe", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames,duration", path
    )
    decoded = run("ffmpeg", "-xerror", "-i", path, "-f", "null", "-")

    assert f"stream,{made.width},{made.height},{made.seconds:.6f},{24 * made.seconds}" == shown.strip()
    assert decoded == ""


@needs_ffmpeg
def test_the_last_frame_is_that_of_the_video(tmp_path: Path) -> None:
    """The PNG shows what the video ends with, but for the rounding of colours."""
    made = film(size="480p", seconds="2")
    (tmp_path / "video.mp4").write_bytes(video(made)[:])
    (tmp_path / "frame.png").write_bytes(last_frame(made)[:])

    from_video = pixels(tmp_path / "video.mp4", frame=2 * 24 - 1)
    from_picture = pixels(tmp_path / "frame.png", frame=0)

    assert len(from_video) == len(from_picture) > 0
    assert max(abs(a - b) for a, b in zip(from_video, from_picture, strict=True)) <= 6


def pixels(path: Path, *, frame: int) -> bytes:
    """Decode one frame to a coarse grid."""
    picked = f"select=eq(n\\,{frame}),scale=in_color_matrix=bt709:flags=neighbor,format=rgb24,scale=61:40:flags=neighbor"
    command = ["ffmpeg", "-v", "error", "-i", path, "-vf", picked, "-frames:v", "1", "-f", "rawvideo", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def run(program: str, *arguments: Any) -> str:
    """Run a program of ffmpeg, and return all that it says."""
    command = [program, "-v", "error", *(["-of", "csv"] if program == "ffprobe" else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
