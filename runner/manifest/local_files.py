"""
Local files in requests: checked when the manifest is read, put in when a request is sent.

Between the two a request holds a reference in the place of each file (its path,
digest, type and size), so that neither memory nor the store ever holds pictures.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.problem import Finding
from runner.errors import FileChanged
from runner.schema.media_fields import MediaField
from runner.schema.paths import format_path, find_values
from runner.schema.request_schema import RequestSchema

_MARKS = ("./", "../", "/", "~")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
_LONGEST_PATH = 1024
"""A longer text is a picture in base64, which may begin with a slash."""

_STAND_IN_DATA = "data:image/png;base64,AAAA"
_STAND_IN_URL = "https://example.com/"


class AttachedFiles(Struct, frozen=True):
    """
    A request whose local files were looked at.

    Attributes:
        request: With a reference in the place of each file.
        stand_in: What the schema is asked about instead: short texts that it takes in their places.
        extra_bytes: By how much the body that will be sent is longer than `stand_in`.
    """

    request: dict[str, Json]
    stand_in: dict[str, Json]
    findings: tuple[Finding, ...]
    extra_bytes: int


def attach_files(request: dict[str, Json], schema: RequestSchema, folder: Path) -> AttachedFiles | None:
    """Look for local files where a document names pictures; None where there is none."""
    attached = stand_in = request
    findings: list[Finding] = []
    extra_bytes = 0
    model = str(request.get("model"))
    for field in schema.media_fields:
        for path, text in find_values(request, field.path):
            file = local_path(text, folder)
            if file is None:
                continue
            picture, problems = _check_file(file, field, model)
            findings += [
                Finding(path, f"{format_path(path)}: {_shown(text)} {problem}", hint) for problem, hint in problems
            ]
            stand_in = _replaced(stand_in, path, _STAND_IN_DATA if field.allows_data_uri else _STAND_IN_URL)
            if picture is not None and not problems:
                attached = _replaced(attached, path, _reference(picture))
                extra_bytes += _data_uri_bytes(picture) - len(_STAND_IN_DATA)
    if stand_in is request:
        return None
    return AttachedFiles(attached, stand_in, tuple(findings), extra_bytes)


def local_path(text: Json, folder: Path) -> Path | None:
    """
    Take a text for the path of a local file where it is one, or can't be meant as anything else.

    >>> local_path("./a.png", Path("manifests")), local_path("https://example.com/a.png", Path("manifests"))
    (PosixPath('manifests/a.png'), None)
    """
    if not isinstance(text, str) or not text or len(text) > _LONGEST_PATH or "://" in text or "\0" in text:
        return None
    if text.startswith("data:"):
        return None
    if text.startswith("~"):
        return Path(os.path.expanduser(text))
    file = folder / text
    if text.startswith(_MARKS) or text.lower().endswith(_SUFFIXES) or os.path.isfile(file):
        return file
    return None


def render_request(request: Mapping[str, Json]) -> dict[str, Json]:
    """
    Put each local file into a request as a data URI. It reads files: keep it off the event loop.

    Raises:
        FileChanged: A file is missing, unreadable, or not what it was when it was checked.
    """
    rendered: dict[str, Json] = _rendered(request)
    return rendered


def _check_file(
    file: Path, field: MediaField, model: str
) -> tuple[LocalImage | None, list[tuple[str, str | None]]]:
    """Read a local file, and say what is wrong with it, each with a hint."""
    if not field.allows_data_uri:
        problem = f"is a local file, and {model} takes only public URLs here"
        return None, [(problem, "upload it, and give its https address")]
    try:
        picture = read_image(file)
    except OSError as error:
        return None, [(f"can't be read: {error.strerror or error}", f"looked for {file}")]
    return picture, [(problem, None) for problem in image_errors(picture, field, model)]


def _reference(picture: LocalImage) -> dict[str, Json]:
    return {
        FILE_KEY: picture.path,
        "sha256": picture.sha256,
        "media_type": picture.media_type,
        "bytes": picture.bytes,
    }


def _data_uri_bytes(picture: LocalImage) -> int:
    return len(f"data:{picture.media_type};base64,") + 4 * ((picture.bytes + 2) // 3)


def _replaced(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    """Copy what is on the way to a path, with a new value at its end."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def _rendered(value: Json) -> Json:
    if isinstance(value, dict):
        if is_file_reference(value):
            return _data_uri(value)
        return {key: _rendered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item) for item in value]
    return value


def _data_uri(reference: Mapping[str, Json]) -> str:
    path = reference[FILE_KEY]
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileChanged(
            f"the local file {path} can't be read any more: {error.strerror or error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != reference["sha256"]:
        raise FileChanged(f"the local file {path} has changed since it was checked")
    return f"data:{reference['media_type']};base64,{base64.b64encode(content).decode('ascii')}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_HEIF_BRANDS = (b"mif1", b"msf1")
_HEAD_BYTES = 16


class LocalImage(Struct, frozen=True):
    """
    A local picture as it was when it was read.

    Attributes:
        path: Absolute.
        format: In lower case, such as ``jpeg``; None where the content is no picture that is known here.
        width: In pixels, as is height; 0 where the file does not say.
    """

    path: str
    sha256: str
    bytes: int
    format: str | None
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """Name the format as a data URI does."""
        return f"image/{self.format}"


def read_image(path: Path) -> LocalImage:
    """
    Read a picture; an unchanged file is read only once while it is remembered.

    Raises:
        OSError: It is missing or unreadable.
    """
    status = os.stat(path)
    return _read(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def image_errors(picture: LocalImage, field: MediaField, model: str) -> list[str]:
    """Say what a model will not take about a picture (fact F23)."""
    formats = field.formats_for(model)
    if picture.format is None:
        return [f"is not a picture of a known format ({', '.join(formats)})"]
    found = []
    if picture.format not in formats:
        found.append(f"is {picture.format.upper()}; {model} takes {', '.join(formats)}")
    if picture.bytes > field.max_bytes:
        found.append(
            f"has {picture.bytes / 1e6:.1f} MB; {model} takes {field.max_bytes / 1e6:.1f} MB at most"
        )
    if not picture.width or not picture.height:
        return [*found, "is damaged: its size in pixels can't be read"]
    sides = f"{picture.width}x{picture.height} pixels"
    if not all(field.min_side_px <= side <= field.max_side_px for side in (picture.width, picture.height)):
        found.append(f"has {sides}; {model} takes sides from {field.min_side_px} to {field.max_side_px}")
    if not field.allows_ratio(picture.width / picture.height):
        ratio = f"{picture.width / picture.height:.3g}"
        found.append(
            f"has {sides}, a ratio of {ratio}; {model} takes {field.min_ratio:g} to {field.max_ratio:g}"
        )
    return found


@lru_cache(maxsize=4096)
def _read(path: str, _mtime_ns: int, size: int) -> LocalImage:
    # Imported here, since most manifests name no local file.
    import imagesize

    with open(path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        try:
            width, height = imagesize.get(stream)
        except Exception:  # whatever a hostile file does to the parser, it is not a picture
            width = height = -1
    return LocalImage(path, sha256, size, image_format(head), max(int(width), 0), max(int(height), 0))


def image_format(head: bytes) -> str | None:
    r"""
    Tell a format by the first 16 bytes of a file.

    >>> picture_format(b"\x89PNG\r\n\x1a\n" + bytes(8)), picture_format(b"%PDF-1.7")
    ('png', None)
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "heic" if brand in _HEIC_BRANDS else "heif" if brand in _HEIF_BRANDS else None
    return None


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)
