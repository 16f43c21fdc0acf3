"""Local files in requests: checked when the manifest is read, encoded when the request is sent."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from runner.core.model import Json, has_files
from runner.errors import FileChanged
from runner.manifest.file_references import render_request
from runner.manifest.local_media import image_format
from tests.manifest.helpers import SEEDANCE, ReadManifest, png, read_jobs


def read_image(folder: Path, image: str, model: str = SEEDANCE) -> ReadManifest:
    """Read a job with this first frame."""
    return read_jobs(folder, f"- {{id: a, request: {{model: {model}, prompt: x, image: '{image}'}}}}")


@pytest.mark.parametrize(
    "name", ["./a.png", "a.png", "sub folder/../a.png", "{folder}/a.png", "./猫.jpg", "noend"]
)
def test_reference(tmp_path: Path, name: str) -> None:
    """An image is a reference with the digest of its content, and becomes a data URI when it is sent."""
    content = png(400, 300)
    (tmp_path / "sub folder").mkdir()
    for file in ("a.png", "猫.jpg", "noend"):
        (tmp_path / file).write_bytes(content)

    result = read_image(tmp_path, name.format(folder=tmp_path))

    assert [] == result.problems
    request = result.requests[0]
    reference = request["image"]
    assert os.path.samefile(reference["$file"], tmp_path / name.format(folder=tmp_path))
    assert os.path.isabs(reference["$file"])
    assert (hashlib.sha256(content).hexdigest(), "image/png", len(content)) == (
        reference["sha256"],
        reference["media_type"],
        reference["bytes"],
    )
    assert has_files(request)
    sent = render_request(request)
    assert "data:image/png;base64," + base64.b64encode(content).decode() == sent["image"]
    assert {**request, "image": ""} == {**sent, "image": ""}


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    """An image with another name makes the same job, a changed image another one."""
    for name, content in (("a.png", png(400, 300)), ("b.png", png(400, 300)), ("c.png", png(400, 301))):
        (tmp_path / name).write_bytes(content)

    a, b, c = (read_image(tmp_path, f"./{name}.png").jobs[0].digest for name in "abc")

    assert a == b
    assert a != c


@pytest.mark.parametrize("image", ["https://example.com/a.png", "data:image/png;base64,AAAA"])
def test_addresses_are_left_alone(tmp_path: Path, image: str) -> None:
    """What is not a local file is sent as it is."""
    request = read_image(tmp_path, image).requests[0]

    assert image == request["image"]
    assert not has_files(request)
    assert request == render_request(request)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("./none.png", "image: './none.png' can't be read: No such file or directory; looked for none.png"),
        ("none.webp", "image: 'none.webp' can't be read: No such file or directory; looked for none.webp"),
        ("./", "image: './' can't be read: Is a directory; looked for "),
        (
            "text.png",
            "image: 'text.png' is not an image of a known format (jpeg, png, webp, bmp, tiff, gif)",
        ),
        (
            "small.png",
            f"image: 'small.png' has 200x299 pixels; {SEEDANCE} allows sides from 300 to 6000 pixels",
        ),
        ("wide.png", f"image: 'wide.png' has 1000x400 pixels, a ratio of 2.5; {SEEDANCE} allows 0.4 to 2.5"),
        ("heic.png", f"image: 'heic.png' is HEIC; {SEEDANCE} allows jpeg, png, webp, bmp, tiff, gif"),
        ("cut.png", "image: 'cut.png' is damaged: its size in pixels can't be read"),
    ],
)
def test_images_that_the_model_does_not_allow(tmp_path: Path, image: str, expected: str) -> None:
    """What the server would refuse later is reported before anything is sent, with the values."""
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "small.png").write_bytes(png(200, 299))
    (tmp_path / "wide.png").write_bytes(png(1000, 400))
    (tmp_path / "heic.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "cut.png").write_bytes(png(400, 300)[:12])

    problems = read_image(tmp_path, image).problems

    assert any(problem.startswith(f'm.yaml:3:71: jobs[0] "a": {expected}') for problem in problems), problems


def test_size(tmp_path: Path) -> None:
    """A file over the model's limit is an error, and a body over 10 MB a warning, before anything is sent."""
    (tmp_path / "large.png").write_bytes(png(400, 300, padding=9_000_000))
    (tmp_path / "huge.png").write_bytes(png(400, 300, padding=32_000_000))

    assert ['m.yaml:3:20: warning: jobs[0] "a": the request has 12 MB; more than 10 MB may be refused'] == [
        problem.split(";  ")[0].rsplit("; use", 1)[0]
        for problem in read_image(tmp_path, "large.png").problems
    ]
    assert "'huge.png' has 32 MB" in read_image(tmp_path, "huge.png").problems[0]


def test_models_that_allow_only_urls(tmp_path: Path) -> None:
    """If the document allows no data URI, a local file is an error, and the only one."""
    (tmp_path / "a.png").write_bytes(png(400, 300))
    jobs = """\
- id: a
  request:
    model: wan2.7-i2v
    media: [{type: first_frame, url: ./a.png}, {type: last_frame, url: https://example.com/b.png}]
"""

    assert [
        "m.yaml:6:38: jobs[0] \"a\": media[0].url: './a.png' is a local file, and wan2.7-i2v takes only public URLs here; "
        "have it uploaded with inputs: {upload: s3://BUCKET/PREFIX} in the manifest, or upload it, and write its https address"
    ] == read_jobs(tmp_path, jobs).problems


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_a_file_that_changed(tmp_path: Path, what: str) -> None:
    """A file that was not checked is never sent."""
    file = tmp_path / "a.png"
    file.write_bytes(png(400, 300))
    request = read_image(tmp_path, "a.png").requests[0]

    file.write_bytes(png(400, 301)) if what == "changed" else file.unlink()

    with pytest.raises(FileChanged, match=r"a\.png (has changed|can't be read any more)"):
        render_request(request)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A cached image is read again if its size or its time changes."""
    file = tmp_path / "a.png"
    file.write_bytes(png(400, 300))
    before = read_image(tmp_path, "a.png").jobs[0].digest

    file.write_bytes(png(400, 300, padding=1))

    assert before != read_image(tmp_path, "a.png").jobs[0].digest


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"BM", "bmp"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"\0\0\0\x18ftypheic", "heic"),
        (b"\0\0\0\x18ftypmif1", "heif"),
        (b"\0\0\0\x18ftypmsf1", "heif"),
        (b"\0\0\0\x18ftyphevx", "heic"),
        (b"\0\0\0\x18ftypisom", "mp4"),
        (b"\0\0\0\x14ftypqt  ", "mov"),
        (b"\0\0\0\x18ftypM4A ", None),
        (b"\0\0\0\x18ftypavif", "avif"),
        (b"RIFF\0\0\0\0WAVE", "wav"),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"ID3\4", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"<svg", None),
        (b"", None),
    ],
)
def test_image_formats(head: bytes, expected: str | None) -> None:
    """The format depends on the content, not on the name."""
    assert expected == image_format(head)


def test_a_reference_is_read_like_any_path(tmp_path: Path) -> None:
    """A file that became a pipe or grew without an end fails its job, and blocks nothing."""
    reference = {"$file": str(tmp_path / "a"), "sha256": "0" * 64, "media_type": "image/png", "bytes": 9}
    os.mkfifo(tmp_path / "a")
    with pytest.raises(FileChanged, match="it is a pipe, and must be a regular file"):
        render_request({"image": reference})
    with (tmp_path / "b").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(FileChanged, match="has changed since it was checked"):
        render_request({"image": {**reference, "$file": str(tmp_path / "b")}})


@pytest.mark.parametrize("broken", [{"$file": 7}, {"sha256": None}, {"media_type": 1}, {"bytes": "9"}])
def test_what_only_looks_like_a_reference(broken: dict[str, Json]) -> None:
    """A mapping with a key missing or of another type is not a reference, but a value like any other."""
    value = {"$file": "/dev/zero", "sha256": "0" * 64, "media_type": "image/png", "bytes": 9, **broken}

    assert not has_files({"image": value})
    assert {"image": value} == render_request({"image": value})


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    """A file larger than any model allows is an error before it is read."""
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10**12)

    assert ["m.yaml:3:71: jobs[0] \"a\": image: './a.png' has 1 TB, more than any model allows"] == (
        read_image(tmp_path, "./a.png").problems
    )
