"""Local files in requests, checked when the manifest is read; a reference then takes the place of each file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path

from msgspec import Struct

from runner.core.model import FILE_KEY, Json
from runner.core.problem import Finding, find_values, format_path
from runner.core.settings import Inputs
from runner.core.units import format_size
from runner.manifest.file_references import replace_at, type_beside
from runner.manifest.local_media import SUFFIXES, LocalMedia, media_errors, read_media
from runner.schema.limits import MediaField, MediaLimits
from runner.schema.request_schema import RequestSchema
from runner.schema.wording import format_value

_PATH_PREFIXES = ("./", "../", "/", "~")
_MAX_PATH_CHARS = 1024
"""A longer text is an image in base64, which may begin with a slash."""

MAX_FILE_BYTES = 250_000_000
"""A larger file is not read; a model allows less."""

_UPLOAD_HINT = (
    "have it uploaded with inputs: {upload: s3://BUCKET/PREFIX} in the manifest, or upload it, "
    "and write its https address"
)


class _Way(Enum):
    """How a local file is sent: not at all, inside the request, or uploaded and as an address or an asset."""

    NONE = auto()
    DATA = auto()
    ADDRESS = auto()
    ASSET = auto()


_STAND_INS = {
    _Way.NONE: "https://example.com/",
    _Way.DATA: "data:image/png;base64,",
    _Way.ADDRESS: "https://example.com/",
    _Way.ASSET: "asset://",
}
"""The start of short valid texts for the schema to check."""


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


def attach_files(
    request: dict[str, Json], schema: RequestSchema, folder: Path, inputs: Inputs | None = None
) -> AttachedFiles | None:
    """
    Check the local files of a request; return None if it has none.

    Args:
        folder: Paths are relative to it.
        inputs: Where files are uploaded; None if they are not.
    """
    attached = stand_in = request
    findings: list[Finding] = []
    extra_bytes = 0
    model = str(request.get("model"))
    for field in schema.media_fields:
        lengths: defaultdict[str, list[float]] = defaultdict(list)
        for path, text in find_values(request, field.path):
            file = local_path(text, folder)
            if file is None:
                continue
            kind = type_beside(request, path)
            limits = field.limits_of(kind)
            way = _way(limits, inputs)
            media, problems = _check_file(file, limits, model, way)
            findings += [
                Finding(path, f"{format_path(path)}: {format_value(text)} {problem}", hint)
                for problem, hint in problems
            ]
            short = f"{_STAND_INS[way]}{'AAAAAAAA' if media is None else media.sha256[:8]}"
            stand_in = replace_at(stand_in, path, short)
            if media is not None and not problems:
                lengths[kind].append(media.duration_s or 0.0)
                attached = replace_at(attached, path, _reference(media))
                extra_bytes += _data_uri_bytes(media) - len(short) if way is _Way.DATA else 0
        for kind, seconds in lengths.items():
            findings += _total_findings(request, kind, round(sum(seconds), 1), field.limits_of(kind), field)
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
    if text.startswith(_PATH_PREFIXES) or text.lower().endswith(SUFFIXES) or os.path.isfile(file):
        return file
    return None


def _total_findings(
    request: dict[str, Json], kind: str, seconds: float, limits: MediaLimits, field: MediaField
) -> Iterator[Finding]:
    """Find what is wrong with the length of all local files of one type together."""
    what = f"the items of type {kind} last {seconds:g} s together"
    if limits.total_seconds is not None and seconds > limits.total_seconds:
        yield Finding(
            field.path[:1], f"{field.path[0]}: {what}; at most {limits.total_seconds:g} s are allowed"
        )
    wanted = request.get("seconds")
    if limits.with_seconds is None or not isinstance(wanted, str) or not wanted.isdecimal():
        return
    if seconds + int(wanted) > limits.with_seconds:
        most = f"at most {limits.with_seconds:g} s are allowed"
        yield Finding(("seconds",), f"seconds: {what}, and {int(wanted) + seconds:g} s with seconds; {most}")


def _way(limits: MediaLimits, inputs: Inputs | None) -> _Way:
    """Return how a file is sent in a field with these limits."""
    if inputs is not None and limits.formats and (limits.allows_asset or not inputs.is_library):
        return _Way.ASSET if inputs.is_library else _Way.ADDRESS
    return _Way.DATA if limits.allows_data_uri else _Way.NONE


def _check_file(
    file: Path, limits: MediaLimits, model: str, way: _Way
) -> tuple[LocalMedia | None, list[tuple[str, str | None]]]:
    """Read a local file, and list what is wrong with it, each with a hint."""
    if way is _Way.NONE:
        problem = f"is a local file, and {model} takes only public URLs here"
        return None, [(problem, _UPLOAD_HINT if limits.formats else None)]
    try:
        size = os.path.getsize(file)
        if size > MAX_FILE_BYTES:
            return None, [(f"has {format_size(size)}, more than any model allows", None)]
        media = read_media(file)
    except OSError as error:
        return None, [(f"can't be read: {error.strerror or error}", f"looked for {file}")]
    return media, [(problem, None) for problem in media_errors(media, limits, model)]


def _reference(media: LocalMedia) -> dict[str, Json]:
    return {
        FILE_KEY: media.path,
        "sha256": media.sha256,
        "media_type": media.media_type,
        "bytes": media.bytes,
    }


def _data_uri_bytes(media: LocalMedia) -> int:
    return len(f"data:{media.media_type};base64,") + 4 * ((media.bytes + 2) // 3)
