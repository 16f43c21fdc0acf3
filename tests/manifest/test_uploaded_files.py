"""Local files in a manifest with `inputs`: what may be uploaded, how it is checked, what is sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.core.settings import Inputs
from runner.manifest.file_references import render_request, uploads_in
from runner.schema.catalog import load_catalog
from tests.manifest.helpers import png, problems_of, read_jobs
from tests.media.samples import clip, mp3, wav

S3 = "inputs: {upload: s3://bucket/prefix}\n"
LIBRARY = "inputs: {upload: powertokens}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png(400, 400))
    (tmp_path / "b.png").write_bytes(png(400, 401))
    (tmp_path / "a.mp4").write_bytes(clip(1280, 720, 9))
    (tmp_path / "b.mp4").write_bytes(clip(1280, 720, 5))
    (tmp_path / "a.wav").write_bytes(wav(4))
    (tmp_path / "a.mp3").write_bytes(mp3(4))
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "cut.mp4").write_bytes(clip(1280, 720, 5)[:-1])
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with (tmp_path / "sparse.mp4").open("wb") as file:
        file.truncate(10**10)
    return tmp_path


@pytest.mark.parametrize(
    "request_text",
    [
        "{model: wan2.7-i2v, media: [{type: first_frame, url: a.png}, {type: last_frame, url: b.png}]}",
        "{model: wan2.7-i2v, media: [{type: first_frame, url: a.png}, {type: driving_audio, url: a.wav}]}",
        "{model: wan2.7-i2v, media: [{type: first_clip, url: a.mp4}]}",
        "{model: wan2.7-r2v, prompt: x, media: [{type: reference_video, url: a.mp4, reference_voice: a.mp3}]}",
        "{model: wan2.2-kf2v-flash, prompt: x, images: [a.png, b.png]}",
        "{model: wan3.0-video, prompt: x, media: [{type: reference_audio, url: a.mp3}, {type: file, url: a.pdf}]}",
        "{model: seedance-1-0-pro-250528, prompt: x, image: a.png}",
        "{model: MiniMax-Hailuo-02, prompt: x, images: [a.png, b.png]}",
    ],
)
def test_every_local_file_is_uploaded_to_a_store(folder: Path, request_text: str) -> None:
    """With a bucket, every media field takes a local file of any kind, and is sent its address."""
    result = read_jobs(folder, f"- {{id: a, request: {request_text}}}", header=S3)
    (request,) = result.requests

    assert [] == result.problems
    found = list(uploads_in(request, Inputs(upload="s3://bucket/prefix"), load_catalog()))
    assert request_text.count(" a.") + request_text.count(" b.") + request_text.count("[a.") == len(found)
    addresses = {path: f"https://x.example/{n}" for n, (path, _) in enumerate(found)}
    sent = str(render_request(request, addresses))
    assert all(address in sent for address in addresses.values())
    assert "$file" not in sent


def test_the_library_takes_the_media_of_seedance_2(folder: Path) -> None:
    """With the asset library, the media of Seedance 2 become assets; those of other models are sent as without it."""
    jobs = """\
- {id: a, request: {model: dreamina-seedance-2-0-260128, media: [{type: text, text: x}, {type: reference_video, url: a.mp4}]}}
- {id: b, request: {model: seedance-1-0-pro-250528, prompt: x, image: a.png}}
"""
    result = read_jobs(folder, jobs, header=LIBRARY)
    first, second = result.requests

    assert [] == result.problems
    inputs = Inputs(upload="powertokens")
    assert [("media", 1, "url")] == [path for path, _ in uploads_in(first, inputs, load_catalog())]
    assert [] == list(uploads_in(second, inputs, load_catalog()))
    assert render_request(second)["image"].startswith("data:image/png;base64,")


WITHOUT = "have it uploaded with inputs: {upload: s3://BUCKET/PREFIX}"


@pytest.mark.parametrize(
    ("header", "media", "expected"),
    [
        ("", "wan2.7-i2v, media: [{type: first_clip, url: a.mp4}]", WITHOUT),
        (LIBRARY, "wan2.7-i2v, media: [{type: first_frame, url: a.png}]", WITHOUT),
        (S3, "wan3.0-video, prompt: x, media: [{type: link, url: ./a.pdf}]", "takes only public URLs here"),
        (S3, "wan2.7-i2v, media: [{type: first_clip, url: a.png}]", "is PNG; wan2.7-i2v allows mp4, mov"),
        (
            S3,
            "wan3.0-video, prompt: x, media: [{type: reference_video, url: a.mp4}, {type: reference_video, url: ./a.mp4}]",
            "media: the items of type reference_video last 18 s together; at most 15 s are allowed",
        ),
        (
            S3,
            "wan3.0-video, prompt: x, seconds: 22, media: [{type: reference_video, url: a.mp4}]",
            "seconds: the items of type reference_video last 9 s together, and 31 s with seconds; at most 30 s",
        ),
    ],
)
def test_files_that_cannot_be_sent(folder: Path, header: str, media: str, expected: str) -> None:
    """What a model, a field or the target does not take is an error before anything is sent."""
    problems = read_jobs(folder, f"- {{id: a, request: {{model: {media}}}}}", header=header).problems

    errors = [problem for problem in problems if "warning" not in problem]
    assert 1 == len(errors), problems
    assert expected in errors[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cut.mp4", "is truncated: its mdat box ends at byte"),
        ("loop.mp4", "can't be read: Too many levels of symbolic links"),
        ("pipe.mp4", "can't be read: it is a pipe, and must be a regular file"),
        ("/dev/zero", "can't be read: it is a device, and must be a regular file"),
        ("sparse.mp4", "has 10 GB, more than any model allows"),
        ("none.mp4", "can't be read: No such file or directory"),
    ],
)
def test_hostile_files_are_not_uploaded(folder: Path, name: str, expected: str) -> None:
    """A file that can't be read, has no end or is not whole gets one clear message, at once."""
    media = f"[{{type: first_clip, url: {name}}}]"
    jobs = f"- {{id: a, request: {{model: wan2.7-i2v, media: {media}}}}}"

    (problem,) = read_jobs(folder, jobs, header=S3).problems

    assert f"media[0].url: '{name}' {expected}" in problem


def test_equal_frames_are_seen(folder: Path) -> None:
    """Two different files are different frames; the same file twice is."""
    jobs = "- {{id: a, request: {{model: wan2.2-kf2v-flash, prompt: x, images: [a.png, {}]}}}}"

    assert [] == read_jobs(folder, jobs.format("b.png"), header=S3).problems
    (problem,) = read_jobs(folder, jobs.format("./a.png"), header=S3).problems
    assert "the first and the last frame have the same address" in problem


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("{}", "missing key 'upload' in inputs"),
        ("{upload: bucket}", "inputs.upload: 'bucket' is not powertokens, or the URL of a bucket"),
        ("{upload: 'https://example.com/'}", "inputs.upload"),
        ("{upload: 's3://key:secret@bucket/x'}", "inputs.upload"),
        ("{upload: 'file:///srv/x'}", "inputs.upload: the files of a folder have no address"),
        ("{upload: s3://b, expires: 0s}", "inputs.expires: '0s' must be longer than 0s"),
        ("{upload: s3://b, expires: 10m}", "warning: inputs.expires: 10m is shorter than poll.timeout"),
        (
            "{upload: s3://b, public_url: ftp://x}",
            "inputs.public_url: 'ftp://x' is not the http or https address",
        ),
        ("{upload: s3://b, size: 1}", "unknown key 'size'"),
    ],
)
def test_bad_inputs(tmp_path: Path, inputs: str, expected: str) -> None:
    """Each mistake in `inputs` has a message with its place."""
    path = tmp_path / "m.yaml"
    path.write_text(f"version: 1\ninputs: {inputs}\njobs: []\n", encoding="utf-8")

    problems = problems_of(path)

    assert any(expected in problem and problem.startswith("m.yaml:2:") for problem in problems), problems
