"""
Local files in requests: checked when the manifest is read, read again when a request is sent.

In between a request has a reference in the place of each file (its path, digest, type
and size), so that neither memory nor the store ever has the images.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import imagesize
from msgspec import Struct

from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.problem import Finding
from runner.core.units import format_size
from runner.errors import FileChanged
from runner.input_files import open_regular
from runner.schema.media_fields import MediaField
from runner.schema.paths import JsonPath, find_values, format_path
from runner.schema.request_schema import RequestSchema
from runner.schema.wording import format_value

_PATH_PREFIXES = ("./", "../", "/", "~")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
_MAX_PATH_CHARS = 1024
"""A longer text is an image in base64, which may begin with a slash."""

MAX_FILE_BYTES = 100_000_000
"""A larger file is not read; a model allows less."""

_STAND_IN_DATA = "data:image/png;base64,AAAA"
_STAND_IN_URL = "https://example.com/"


class AttachedFiles(Struct, frozen=True):
    """
    A request whose local files were checked.

    Attributes:
        request: With a reference in the place of each file.
        stand_in: For the schema to check: with a short valid text in the place of each file.
        extra_bytes: By how much the body that will be sent is longer than `stand_in`.
    """

    request: dict[str, Json]
    stand_in: dict[str, Json]
    findings: tuple[Finding, ...]
    extra_bytes: int


def attach_files(request: dict[str, Json], schema: RequestSchema, folder: Path) -> AttachedFiles | None:
    """Check the local files of a request, whose paths are relative to a folder; return None if it has none."""
    attached = stand_in = request
    findings: list[Finding] = []
    extra_bytes = 0
    model = str(request.get("model"))
    for field in schema.media_fields:
        for path, text in find_values(request, field.path):
            file = local_path(text, folder)
            if file is None:
                continue
            image, problems = _check_file(file, field, model)
            findings += [
                Finding(path, f"{format_path(path)}: {format_value(text)} {problem}", hint)
                for problem, hint in problems
            ]
            stand_in = _replaced(stand_in, path, _STAND_IN_DATA if field.allows_data_uri else _STAND_IN_URL)
            if image is not None and not problems:
                attached = _replaced(attached, path, _reference(image))
                extra_bytes += _data_uri_bytes(image) - len(_STAND_IN_DATA)
    if stand_in is request:
        return None
    return AttachedFiles(attached, stand_in, tuple(findings), extra_bytes)


def local_path(text: Json, folder: Path) -> Path | None:
    """
    Return the path that a text names, if it is a local file or can't be anything else.

    >>> local_path("./a.png", Path("manifests")), local_path("https://example.com/a.png", Path("manifests"))
    (PosixPath('manifests/a.png'), None)
    """
    if not isinstance(text, str) or not text or len(text) > _MAX_PATH_CHARS or "://" in text or "\0" in text:
        return None
    if text.startswith("data:"):
        return None
    if text.startswith("~"):
        return Path(os.path.expanduser(text))
    file = folder / text
    if text.startswith(_PATH_PREFIXES) or text.lower().endswith(_SUFFIXES) or os.path.isfile(file):
        return file
    return None


def render_request(request: Mapping[str, Json]) -> dict[str, Json]:
    """
    Replace each local file of a request by a data URI. It reads, hashes and encodes files: call it in a thread.

    Raises:
        FileChanged: A file is missing, unreadable, or not what it was when it was checked.
    """
    rendered: dict[str, Json] = _rendered(request)
    return rendered


def _check_file(
    file: Path, field: MediaField, model: str
) -> tuple[LocalImage | None, list[tuple[str, str | None]]]:
    """Read a local file, and list what is wrong with it, each with a hint."""
    if not field.allows_data_uri:
        problem = f"is a local file, and {model} takes only public URLs here"
        return None, [(problem, "upload it, and write its https address")]
    try:
        size = os.path.getsize(file)
        if size > MAX_FILE_BYTES:
            return None, [(f"has {format_size(size)}, more than any model allows", None)]
        image = read_image(file)
    except OSError as error:
        return None, [(f"can't be read: {error.strerror or error}", f"looked for {file}")]
    return image, [(problem, None) for problem in image_errors(image, field, model)]


def _reference(image: LocalImage) -> dict[str, Json]:
    return {
        FILE_KEY: image.path,
        "sha256": image.sha256,
        "media_type": image.media_type,
        "bytes": image.bytes,
    }


def _data_uri_bytes(image: LocalImage) -> int:
    return len(f"data:{image.media_type};base64,") + 4 * ((image.bytes + 2) // 3)


def _replaced(value: Json, path: JsonPath, new: Json) -> Json:
    """Copy a value with a new one at a path; what is not on the path is shared."""
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
        with open_regular(path) as stream:
            content = stream.read(reference["bytes"] + 1)
    except OSError as error:
        raise FileChanged(
            f"the local file {path} can't be read any more: {error.strerror or error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != reference["sha256"]:
        raise FileChanged(f"the local file {path} has changed since it was checked")
    return f"data:{reference['media_type']};base64,{base64.b64encode(content).decode('ascii')}"


_HEAD_BYTES = 16
_SIGNATURES = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<gif>GIF8[79]a)|(?P<bmp>BM)|(?P<tiff>II\*\0|MM\0\*)"
    rb"|(?P<webp>RIFF.{4}WEBP)|.{4}ftyp(?:(?P<heic>hei[cmsx]|hev[cx])|(?P<heif>m[is]f1))",
    re.DOTALL,
)
"""The first bytes of each format that a model may allow."""


class LocalImage(Struct, frozen=True):
    """
    A local image as it was when it was read.

    Attributes:
        path: Absolute.
        format: In lower case, such as ``jpeg``; None if the content is not an image of a known format.
        width: In pixels, as is height; 0 if it can't be read.
    """

    path: str
    sha256: str
    bytes: int
    format: str | None
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """The format as in a data URI."""
        return f"image/{self.format}"


def read_image(path: Path) -> LocalImage:
    """
    Read an image; an unchanged file is read only once while it is cached.

    Raises:
        OSError: It is missing or unreadable.
    """
    status = os.stat(path)
    return _read(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def image_errors(image: LocalImage, field: MediaField, model: str) -> list[str]:
    """List why a model does not allow an image (fact F23)."""
    formats = field.formats_for(model)
    if image.format is None:
        return [f"is not an image of a known format ({', '.join(formats)})"]
    errors = []
    if image.format not in formats:
        errors.append(f"is {image.format.upper()}; {model} allows {', '.join(formats)}")
    if image.bytes > field.max_bytes:
        errors.append(
            f"has {format_size(image.bytes)}; {model} allows {format_size(field.max_bytes)} at most"
        )
    if not image.width or not image.height:
        return [*errors, "is damaged: its size in pixels can't be read"]
    sides = f"{image.width}x{image.height} pixels"
    if not all(field.min_side_px <= side <= field.max_side_px for side in (image.width, image.height)):
        errors.append(
            f"has {sides}; {model} allows sides from {field.min_side_px} to {field.max_side_px} pixels"
        )
    if not field.allows_ratio(image.width / image.height):
        ratio = f"{image.width / image.height:.3g}"
        errors.append(
            f"has {sides}, a ratio of {ratio}; {model} allows {field.min_ratio:g} to {field.max_ratio:g}"
        )
    return errors


@lru_cache(maxsize=4096)
def _read(path: str, _mtime_ns: int, size: int) -> LocalImage:
    with open_regular(path) as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        try:
            width, height = imagesize.get(stream)
        except Exception:  # whatever a malicious file does to the parser, it is not an image
            width = height = -1
    return LocalImage(path, sha256, size, image_format(head), max(int(width), 0), max(int(height), 0))


def image_format(head: bytes) -> str | None:
    r"""
    Return the format of an image by the first 16 bytes of its file, or None.

    >>> image_format(b"\x89PNG\r\n\x1a\n" + bytes(8)), image_format(b"%PDF-1.7")
    ('png', None)
    """
    match = _SIGNATURES.match(head)
    return match.lastgroup if match else None
