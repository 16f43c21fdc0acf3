"""What models allow of local pictures, videos, audios and files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.manifest.local_media import LocalMedia, media_errors, read_media
from runner.schema.catalog import load_catalog
from tests.manifest.helpers import png, read_jobs
from tests.media.samples import clip, mp3, mp4, wav

WAN27, R2V, WAN3 = "wan2.7-i2v", "wan2.7-r2v", "wan3.0-video"
SEEDANCE_20, SEEDANCE_25 = "dreamina-seedance-2-0-260128", "dreamina-seedance-2-5-260628"
SCHEMAS = {WAN27: WAN27, R2V: R2V, WAN3: "wan3.0", SEEDANCE_20: "seedance-2.0", SEEDANCE_25: "seedance-2.5"}
MB = 1024 * 1024


def errors(folder: Path, content: bytes, model: str, kind: str, name: str = "file") -> list[str]:
    """Return why a model does not allow a file in an item of this type."""
    (folder / name).write_bytes(content)
    return checked(read_media(folder / name), model, kind)


def checked(media: LocalMedia, model: str, kind: str) -> list[str]:
    fields = load_catalog().schema(SCHEMAS[model]).media_fields
    place = "reference_voice" if kind == "reference_voice" else "url"
    (field,) = (field for field in fields if field.path[-1] == place)
    return media_errors(media, field.limits_of(kind), model)


@pytest.mark.parametrize(
    ("content", "model", "kind"),
    [
        (png(240, 300), WAN27, "first_frame"),
        (wav(2), WAN27, "driving_audio"),
        (mp3(30), WAN27, "driving_audio"),
        (clip(240, 1920, 2), WAN27, "first_clip"),
        (clip(4096, 4096, 10, 12, b"qt  "), WAN27, "first_clip"),
        (clip(640, 480, 30), R2V, "reference_video"),
        (wav(1), R2V, "reference_voice"),
        (clip(640, 480, 15), WAN3, "reference_video"),
        (mp3(15), WAN3, "reference_audio"),
        (b"%PDF-1.7", WAN3, "file"),
        (png(301, 301), SEEDANCE_20, "first_frame"),
        (clip(1280, 720, 15.04, 23.976), SEEDANCE_20, "reference_video"),
        (clip(1280, 720, 30, 60), SEEDANCE_25, "reference_video"),
        (wav(30), SEEDANCE_25, "reference_audio"),
    ],
)
def test_what_models_allow(tmp_path: Path, content: bytes, model: str, kind: str) -> None:
    """Files within the limits of the page have no errors."""
    assert [] == errors(tmp_path, content, model, kind, "file.pdf" if kind == "file" else "file")


@pytest.mark.parametrize(
    ("content", "model", "kind", "expected"),
    [
        (png(239, 300), WAN27, "first_frame", ["has 239x300 pixels; {} allows sides from 240 to 8000 pixels"]),
        (png(300, 300), SEEDANCE_20, "first_frame", ["has 300x300 pixels; {} allows sides from 301 to 5999 pixels"]),
        (wav(1), WAN27, "first_frame", ["is WAV; {} allows jpeg, png, bmp, webp"]),
        (png(400, 300), WAN27, "driving_audio", ["is PNG; {} allows wav, mp3"]),
        (b"text", WAN27, "driving_audio", ["is not an audio of a known format (wav, mp3)"]),
        (wav(1.5), WAN27, "driving_audio", ["lasts 1.5 s; {} allows 2 to 30 s"]),
        (wav(10.2), R2V, "reference_voice", ["lasts 10.2 s; {} allows 1 to 10 s"]),
        (b"text", WAN27, "first_clip", ["is not a video of a known format (mp4, mov)"]),
        (mp4()[:-1], WAN27, "first_clip", ["is truncated: its mdat box ends at byte 1468 of 1467"]),
        (clip(4098, 480, 3), WAN27, "first_clip", [
            "has 4098x480 pixels; {} allows sides from 240 to 4096 pixels",
            "has 4098x480 pixels, a ratio of 8.54; {} allows 0.125 to 8",
        ]),
        (clip(640, 480, 11), WAN27, "first_clip", ["lasts 11 s; {} allows 2 to 10 s"]),
        (clip(640, 480, 16), WAN3, "reference_video", ["lasts 16 s; {} allows 1 to 15 s"]),
        (b"<svg", WAN3, "file", [
            "is not a file of a known format "
            "(docx, doc, xlsx, xls, pptx, ppt, pdf, txt, key, pages, numbers, md)"
        ]),
        (clip(640, 480, 3), SEEDANCE_20, "reference_video", [
            "has 640x480 pixels, 307200 in all; {} allows 409600 to 8295044"
        ]),
        (clip(2000, 700, 3, 12), SEEDANCE_25, "reference_video", [
            "has 2000x700 pixels, a ratio of 2.86; {} allows 0.4 to 2.5",
            "has 12 frames a second; {} allows 24 to 60",
        ]),
        (clip(1280, 720, 16), SEEDANCE_20, "reference_video", ["lasts 16 s; {} allows 2 to 15 s"]),
        (clip(1280, 720, 3, codec=b"vp09"), SEEDANCE_25, "reference_video", [
            "is coded as vp9; {} allows h264, hevc"
        ]),
        (mp3(31), SEEDANCE_25, "reference_audio", ["lasts 31 s; {} allows 2 to 30 s"]),
    ],
)  # fmt: skip
def test_what_models_refuse(
    tmp_path: Path, content: bytes, model: str, kind: str, expected: list[str]
) -> None:
    """What the server would refuse after it was paid is said before, with the value and the limit."""
    assert [text.format(model) for text in expected] == errors(tmp_path, content, model, kind)


@pytest.mark.parametrize(
    ("model", "kind", "name", "most"),
    [
        (WAN27, "first_frame", "jpeg", 20 * MB),
        (WAN27, "driving_audio", "wav", 15 * MB),
        (WAN27, "first_clip", "mov", 100 * MB),
        (R2V, "reference_video", "mp4", 100 * MB),
        (R2V, "reference_voice", "mp3", 15 * MB),
        (WAN3, "reference_video", "mp4", 100 * MB),
        (WAN3, "reference_audio", "wav", 15 * MB),
        (WAN3, "file", "pdf", 100 * MB),
        (SEEDANCE_20, "first_frame", "heic", 30 * MB - 1),
        (SEEDANCE_20, "reference_video", "mp4", 50 * MB),
        (SEEDANCE_25, "reference_video", "mov", 200 * MB),
        (SEEDANCE_25, "reference_audio", "mp3", 15 * MB),
    ],
)
def test_sizes(model: str, kind: str, name: str, most: int) -> None:
    """A file of the largest allowed size is allowed, one of a byte more is not."""
    assert [] == checked(LocalMedia("/a", "00", most, name), model, kind)
    (error,) = checked(LocalMedia("/a", "00", most + 1, name), model, kind)
    assert error.startswith("has ")
    assert f"; {model} allows " in error


def test_transparent_pictures(tmp_path: Path) -> None:
    """Wan takes no PNG with an alpha channel, Seedance does."""
    content = bytearray(png(400, 400))
    content[25] = 6

    assert ["is a PNG with an alpha channel, which wan2.7-i2v does not allow"] == errors(
        tmp_path, bytes(content), WAN27, "first_frame"
    )
    assert [] == errors(tmp_path, bytes(content), SEEDANCE_20, "first_frame")


AUDIOS = """\
- id: a
  request:
    model: dreamina-seedance-2-0-260128
    media:
      - {{type: text, text: x}}
      - {{type: reference_image, url: https://example.com/a.png}}
      - {{type: reference_audio, url: {}}}
      - {{type: reference_audio, url: ./b.mp3}}
"""


def test_audio_in_a_request(tmp_path: Path) -> None:
    """Local audio is sent inside a request that allows it, and all audio of a request counts together."""
    (tmp_path / "a.wav").write_bytes(wav(5))
    (tmp_path / "b.mp3").write_bytes(mp3(10))
    result = read_jobs(tmp_path, AUDIOS.format("./a.wav"))
    (request,) = result.requests

    assert ["audio/wav", "audio/mpeg"] == [item["url"]["media_type"] for item in request["media"][2:]]
    (tmp_path / "a.wav").write_bytes(wav(5.5))
    assert [
        'm.yaml:7:7: jobs[0] "a": media: the items of type reference_audio last 15.5 s together; '
        "at most 15 s are allowed"
    ] == [
        problem
        for problem in read_jobs(tmp_path, AUDIOS.format("./a.wav")).problems
        if "warning" not in problem
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sparse.wav", "has 10 GB, more than any model allows"),
        ("pipe.wav", "can't be read: it is a pipe, and must be a regular file"),
        ("/dev/zero", "can't be read: it is a device, and must be a regular file"),
        ("loop.wav", "can't be read: Too many levels of symbolic links"),
        ("cut.wav", "is truncated: its sound ends at byte 16056 of 15056"),
        ("none.wav", "can't be read: No such file or directory"),
        ("video.mp4", "is MP4; dreamina-seedance-2-0-260128 allows wav, mp3"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, expected: str) -> None:
    """A file that can't be read, has no end or is not whole gets one clear message, at once."""
    (tmp_path / "b.mp3").write_bytes(mp3(4))
    with (tmp_path / "sparse.wav").open("wb") as file:
        file.truncate(10**10)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "cut.wav").write_bytes(wav(2)[:-1000])
    (tmp_path / "video.mp4").write_bytes(mp4())

    problems = [p for p in read_jobs(tmp_path, AUDIOS.format(name)).problems if "warning" not in p]

    assert 1 == len(problems), problems
    assert f"media[2].url: '{name}' {expected}" in problems[0]
