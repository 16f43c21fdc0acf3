"""Videos and pictures: complete, of the requested size and length, and different for each job."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runner.media.headers import MediaInfo
from runner.media.mp4 import read_mp4
from runner.simulator import h264
from runner.simulator.video import MediaBody, VideoSpec, last_frame, video, video_spec
from tests.simulator.simulator_client import start_simulator

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffmpeg is not installed")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def spec(text: str = "a job", **request: Any) -> VideoSpec:
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
def test_a_video_has_the_requested_size_and_length(
    request_: dict[str, str], expected: tuple[int, int, int]
) -> None:
    """Size, ratio and seconds decide; the default for an absent size is the one that the model documents."""
    wanted = video_spec(request_, digest("x"))

    assert expected == (wanted.width, wanted.height, wanted.seconds)


def test_the_model_may_choose_the_length() -> None:
    """Seconds of -1 give a length from 4 to 12, and the same length for the same request."""
    lengths = {spec(str(number), seconds="-1").seconds for number in range(200)}

    assert set(range(4, 13)) == lengths


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, True),
        ({"generate_audio": False}, False),
        ({"model": "seedance-1-0-pro-250528"}, False),
        ({"model": "seedance-1-0-pro-250528", "generate_audio": True}, True),
        ({"model": "wan2.7-i2v"}, False),
    ],
)
def test_a_video_has_sound_if_the_request_asks_for_it(request_: dict[str, Any], expected: bool) -> None:
    """One model makes sound by default; the others only if the request says so."""
    assert expected == spec(**request_).has_sound


def test_videos_differ_by_job_only() -> None:
    """Every job has its own video and picture, with its own color; the same request always gives the same bytes."""
    videos = {video(spec(str(number), size="480p"))[:] for number in range(50)}
    pictures = {last_frame(spec(str(number), size="480p"))[:] for number in range(50)}
    colors = {spec(str(number)).color for number in range(50)}

    assert 50 == len(videos) == len(pictures) == len(colors)
    assert video(spec("a"))[:] == video(spec("a"))[:]


def test_files_differ_even_if_the_color_is_the_same() -> None:
    """A digest that starts like another one gives the same last color, but a different video and picture."""
    one, other = (VideoSpec("aabbcc" + rest * 58, 854, 480, 2) for rest in "01")

    assert one.color == other.color
    assert video(one)[:] != video(other)[:]
    assert last_frame(one)[:] != last_frame(other)[:]


def test_a_video_is_small_and_can_be_padded() -> None:
    """A video has some kilobytes, or exactly as many bytes as a scenario asks for, without holding them in memory."""
    plain = video(spec(size="1080p", seconds="12"))
    padded = video(spec(), size=10**12)

    assert plain.size < 60_000
    assert 10**12 == padded.size
    assert len(padded.head) < 60_000
    assert bytes(5) == padded[10**12 - 5 : 10**12]


def test_moov_is_first_by_default() -> None:
    """The order of the boxes can be reversed, and moov left out."""
    wanted = spec()

    assert ["ftyp", "moov", "mdat", "free"] == boxes(video(wanted)[:])
    assert ["ftyp", "mdat", "moov", "free"] == boxes(video(wanted, moov_first=False)[:])
    assert ["ftyp", "mdat", "free"] == boxes(video(wanted, with_moov=False)[:])


@pytest.mark.parametrize("moov_first", [True, False])
@pytest.mark.parametrize("with_sound", [True, False])
def test_our_reader_finds_what_was_requested(moov_first: bool, with_sound: bool) -> None:
    """The program's own MP4 reader accepts each form of the file."""
    file = video(spec(size="480p", seconds="3", generate_audio=with_sound), moov_first=moov_first)[:]

    wanted = MediaInfo("video/mp4", 854, 480, 3.0, "h264", 24.0, with_sound)
    assert wanted == read_mp4(io.BytesIO(file), len(file))


async def test_a_quicktime_file() -> None:
    """A request for mov gets a QuickTime file with its own name and type, on the asset host and the content route."""
    async with start_simulator() as client:
        request = {
            "model": "dreamina-seedance-2-5-260628",
            "media": [{"type": "text", "text": "A kitten"}],
            "size": "480p",
            "seconds": "4",
            "output_format": "mov",
        }
        task_id = await client.accepted(request)
        client.clock.now += 100
        url = (await client.poll(task_id)).json["content"]["video_url"]
        asset = await client.fetch(url)
        content = await client.request("GET", f"/v1/videos/{task_id}/content")

    assert url.partition("?")[0].endswith("/video.mov")
    assert ["video/quicktime"] * 2 == [answer.headers["Content-Type"] for answer in (asset, content)]
    assert asset.body == content.body
    expected = MediaInfo("video/quicktime", 854, 480, 4.0, "h264", 24.0, has_sound=True)
    assert expected == read_mp4(io.BytesIO(asset.body), len(asset.body))
    assert ["ftyp", "moov", "mdat", "free"] == boxes(asset.body)


@needs_ffmpeg
def test_ffmpeg_decodes_a_quicktime_file(tmp_path: Path) -> None:
    """An independent decoder finds all frames, and PCM that can be heard and is as long as the video."""
    path = tmp_path / "video.mov"
    path.write_bytes(video(spec(size="480p", seconds="3", output_format="mov"))[:])

    streams = run("ffprobe", "-count_frames", "-show_entries", "stream=codec_name,nb_read_frames", path)
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-map", "0:a", "-f", "s16le", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)

    assert streams.startswith("stream,h264,72\nstream,pcm_s16le,")
    assert b"" == decoded.stderr
    assert 3 * 8000 == len(decoded.stdout) // 2
    assert {2000, -2000} == set(array("h", decoded.stdout))
    assert "qt  " in run("ffprobe", "-show_entries", "format_tags=major_brand", path)


def boxes(data: bytes) -> list[str]:
    """Return the names of the top-level boxes, which must fill the file exactly."""
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
def test_a_padded_body_is_sliced_like_bytes(head: bytes, padding: int, start: int, stop: int) -> None:
    """Any slice of a body is the slice of the bytes that it represents."""
    content = head + bytes(padding)

    assert content[start:stop] == MediaBody(head, len(content))[start:stop]


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=60).map(bytes))
def test_no_payload_contains_a_start_code(payload: bytes) -> None:
    """Escaped, no 00 00 is followed by 00, 01 or 02; removing the escapes returns the payload."""
    escaped = h264.escape(payload)

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
    "request_",
    [
        {"size": "720p", "ratio": "16:9", "seconds": "5"},
        {"size": "480p", "ratio": "9:16", "seconds": "2", "generate_audio": False},
        {"size": "1080p", "ratio": "21:9", "seconds": "2"},
        {"size": "480p", "ratio": "1:1", "seconds": "3"},
    ],
)
@pytest.mark.parametrize("moov_first", [True, False])
def test_ffmpeg_decodes_every_frame_without_errors(
    request_: dict[str, Any], moov_first: bool, tmp_path: Path
) -> None:
    """An independent decoder finds the size, the length, all frames, and sound if the request asks for it."""
    wanted = spec(**request_)
    path = tmp_path / "video.mp4"
    path.write_bytes(video(wanted, moov_first=moov_first)[:])

    entries = "stream=codec_name,width,height,nb_read_frames,duration"
    streams = run("ffprobe", "-count_frames", "-show_entries", entries, path).splitlines()
    decoded = run("ffmpeg", "-xerror", "-i", path, "-f", "null", "-")

    size = f"{wanted.width},{wanted.height}"
    assert f"stream,h264,{size},{wanted.seconds:.6f},{24 * wanted.seconds}" == streams[0]
    assert wanted.has_sound == any(line.startswith("stream,aac,") for line in streams[1:])
    assert "" == decoded


@needs_ffmpeg
def test_the_sound_is_as_long_as_the_video_and_can_be_heard(tmp_path: Path) -> None:
    """There are as many samples as the video lasts, to a frame of AAC, and their peak is that of a quiet hum."""
    path = tmp_path / "video.mp4"
    path.write_bytes(video(spec(size="480p", seconds="3"))[:])

    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "s16le", "-"]
    samples = subprocess.run(command, capture_output=True, check=True).stdout

    assert 1000 < max(array("h", samples)) < 8000
    assert 3 * 48_000 - 1024 <= len(samples) // 2 <= 3 * 48_000


@needs_ffmpeg
@pytest.mark.parametrize("request_", [{"size": "480p", "seconds": "4"}, {"size": "1080p", "ratio": "9:16"}])
def test_a_video_moves_and_is_not_black(request_: dict[str, str], tmp_path: Path) -> None:
    """Independent filters find no half second that is frozen or black, even if the first color is black."""
    path = tmp_path / "video.mp4"
    path.write_bytes(video(replace(spec(**request_), digest="000000" + digest("x")[6:]))[:])

    filters = "freezedetect=duration=0.5,blackdetect=d=0.5"
    command = ["ffmpeg", "-hide_banner", "-i", str(path), "-vf", filters, "-an", "-f", "null", "-"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stderr

    assert "freeze_start" not in found
    assert "black_start" not in found


@needs_ffmpeg
def test_the_last_frame_is_that_of_the_video(tmp_path: Path) -> None:
    """The PNG shows what the video ends with, except for the rounding of colors."""
    wanted = spec(size="480p", seconds="2")
    (tmp_path / "video.mp4").write_bytes(video(wanted)[:])
    (tmp_path / "frame.png").write_bytes(last_frame(wanted)[:])

    from_video = pixels(tmp_path / "video.mp4", frame=2 * 24 - 1)
    from_picture = pixels(tmp_path / "frame.png", frame=0)

    assert len(from_video) == len(from_picture) > 0
    assert max(abs(a - b) for a, b in zip(from_video, from_picture, strict=True)) <= 6
    assert bytes(wanted.color) * (len(from_picture) // 3) == from_picture


def pixels(path: Path, *, frame: int) -> bytes:
    """Decode one frame to a coarse grid."""
    picked = f"select=eq(n\\,{frame}),scale=in_color_matrix=bt709:flags=neighbor,format=rgb24,scale=61:40:flags=neighbor"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(path),
        "-vf",
        picked,
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-",
    ]
    return subprocess.run(command, capture_output=True, check=True).stdout


def run(program: str, *arguments: Any) -> str:
    """Run a program of ffmpeg, and return its output."""
    command = [program, "-v", "error", *(["-of", "csv"] if program == "ffprobe" else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
