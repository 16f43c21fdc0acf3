"""What a local picture, video, audio or other file is, and what of it a model does not allow."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from runner.core.units import format_size
from runner.disk import open_regular
from runner.media import InvalidMedia, MediaInfo, read_audio, read_mp4
from runner.schema.limits import MediaLimits, Range

_IMAGES = {
    name: f"image/{name}" for name in ("jpeg", "png", "webp", "bmp", "tiff", "gif", "heic", "heif", "avif")
}
_VIDEOS = {"mp4": "video/mp4", "mov": "video/quicktime"}
_AUDIOS = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "docx": f"{_OFFICE}.wordprocessingml.document",
    "doc": "application/msword",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    "xls": "application/vnd.ms-excel",
    "pptx": f"{_OFFICE}.presentationml.presentation",
    "ppt": "application/vnd.ms-powerpoint",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "key": "application/vnd.apple.keynote",
    "pages": "application/vnd.apple.pages",
    "numbers": "application/vnd.apple.numbers",
}
_TYPES = {**_IMAGES, **_VIDEOS, **_AUDIOS, **_DOCUMENTS}
SUFFIXES = (*(f".{name}" for name in _TYPES), ".jpg", ".tif")
"""Of the names of all files that a model may allow."""

_HEAD_BYTES = 32
_SIGNATURES = (
    rb"(?s)(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<gif>GIF8[79]a)|(?P<bmp>BM)|(?P<tiff>II\*\0|MM\0\*)"
    rb"|RIFF.{4}(?:(?P<webp>WEBP)|(?P<wav>WAVE))|(?P<mp3>ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb])"
    rb"|.{4}ftyp(?:(?P<heic>hei[cmsx]|hev[cx])|(?P<heif>m[is]f1)|(?P<avif>avi[fs])|(?P<mov>qt  )|(?P<mp4>(?!M4[AB])))"
)
"""The first bytes of each format that a model may allow."""
_PNG_HAS_ALPHA = 4
"""A bit of the kind of color, the byte after the size and the depth."""


class LocalMedia(Struct, frozen=True):
    """
    A local file as it was when it was read.

    Attributes:
        path: Absolute.
        format: In lower case, such as ``jpeg``; None if it is of no known format.
        width: In pixels, as is height; None if it has none, or it can't be read.
        has_alpha: Whether it is a PNG with an alpha channel.
        damage: What is wrong with the file, as the end of a sentence; None if nothing is.
    """

    path: str
    sha256: str
    bytes: int
    format: str | None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    frame_rate: float | None = None
    codec: str | None = None
    has_alpha: bool = False
    damage: str | None = None

    @property
    def media_type(self) -> str:
        """The format as in a Content-Type."""
        return _TYPES.get(self.format or "", "application/octet-stream")


def read_media(path: Path) -> LocalMedia:
    """
    Read a file; an unchanged one is read only once while it is cached.

    Raises:
        OSError: It is missing, unreadable, or no regular file.
    """
    status = os.stat(path)
    return _read(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def media_errors(media: LocalMedia, limits: MediaLimits, model: str) -> list[str]:
    """List why a model does not allow a file (facts F23 and F24), each as the end of a sentence."""
    formats = limits.formats_for(model)
    if media.format is None:
        return [f"is not {_noun(formats)} of a known format ({', '.join(formats)})"]
    errors = []
    if media.format not in formats:
        errors.append(f"is {media.format.upper()}; {model} allows {', '.join(formats)}")
    elif media.has_alpha and not limits.has_alpha:
        errors.append(f"is a PNG with an alpha channel, which {model} does not allow")
    if limits.max_bytes is not None and media.bytes > limits.max_bytes:
        errors.append(
            f"has {format_size(media.bytes)}; {model} allows {format_size(limits.max_bytes)} at most"
        )
    if media.damage is not None:
        return [*errors, media.damage]
    if media.format not in formats and _noun((media.format,)) != _noun(formats):
        return errors
    return [*errors, *_size_errors(media, limits, model), *_film_errors(media, limits, model)]


def image_format(head: bytes) -> str | None:
    r"""
    Return the format of an image, video or audio by the first bytes of its file, or None.

    >>> image_format(b"\x89PNG\r\n\x1a\n" + bytes(8)), image_format(b"%PDF-1.7")
    ('png', None)
    """
    match = re.match(_SIGNATURES, head)
    return match.lastgroup if match else None


def _noun(formats: tuple[str, ...]) -> str:
    for noun, known in (("an image", _IMAGES), ("a video", _VIDEOS), ("an audio", _AUDIOS)):
        if formats and formats[0] in known:
            return noun
    return "a file"


def _size_errors(media: LocalMedia, limits: MediaLimits, model: str) -> Iterator[str]:
    if media.width is None or media.height is None:
        return
    sides = f"{media.width}x{media.height} pixels"
    if limits.sides and not all(_is_in(side, limits.sides) for side in (media.width, media.height)):
        yield f"has {sides}; {model} allows sides from {limits.sides[0]} to {limits.sides[1]} pixels"
    pixels = media.width * media.height
    if limits.pixels and not _is_in(pixels, limits.pixels):
        yield f"has {sides}, {pixels} in all; {model} allows {limits.pixels[0]} to {limits.pixels[1]}"
    ratio = media.width / media.height
    if limits.ratio and not limits.allows_ratio(ratio):
        least, most = limits.ratio
        yield f"has {sides}, a ratio of {ratio:.3g}; {model} allows {least:g} to {most:g}"


def _film_errors(media: LocalMedia, limits: MediaLimits, model: str) -> Iterator[str]:
    # Encoders add some hundredths of a second, and 23.976 frames a second are called 24.
    if (
        limits.seconds
        and media.duration_s is not None
        and not _is_in(round(media.duration_s, 1), limits.seconds)
    ):
        least, most = limits.seconds
        yield f"lasts {media.duration_s:.3g} s; {model} allows {least:g} to {most:g} s"
    if (
        limits.frame_rate
        and media.frame_rate is not None
        and not _is_in(round(media.frame_rate), limits.frame_rate)
    ):
        least, most = limits.frame_rate
        yield f"has {media.frame_rate:.4g} frames a second; {model} allows {least:g} to {most:g}"
    if limits.codecs and media.codec is not None and media.codec not in limits.codecs:
        yield f"is coded as {media.codec}; {model} allows {', '.join(limits.codecs)}"


def _is_in(value: float, allowed: Range) -> bool:
    return allowed[0] <= value <= allowed[1]


@lru_cache(maxsize=4096)
def _read(path: str, _mtime_ns: int, size: int) -> LocalMedia:
    with open_regular(path) as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(0)
        media = LocalMedia(path, hashlib.file_digest(stream, "sha256").hexdigest(), size, image_format(head))
        info, damage = _info(stream, media.format, size)
    suffix = Path(path).suffix.lower().removeprefix(".")
    return LocalMedia(
        path,
        media.sha256,
        size,
        media.format or (suffix if suffix in _DOCUMENTS else None),
        info.width,
        info.height,
        info.duration_s,
        info.fps,
        info.codec,
        has_alpha=media.format == "png" and len(head) > 25 and bool(head[25] & _PNG_HAS_ALPHA),
        damage=damage,
    )


def _info(stream: BinaryIO, name: str | None, size: int) -> tuple[MediaInfo, str | None]:
    """Read what the header of a file says, and what is wrong with the file."""
    try:
        if name in _VIDEOS:
            return read_mp4(stream, size), None
        if name in _AUDIOS:
            return read_audio(stream, size), None
    except InvalidMedia as error:
        return MediaInfo(""), str(error)
    if name is None:
        return MediaInfo(""), None
    # Slow to import, and most runs have no local pictures.
    import imagesize

    stream.seek(0)
    try:
        width, height = map(int, imagesize.get(stream))
    except Exception:  # whatever a malicious file does to the parser, it is not an image
        width = height = 0
    if width <= 0 or height <= 0:
        return MediaInfo(""), "is damaged: its size in pixels can't be read"
    return MediaInfo("", width, height), None
