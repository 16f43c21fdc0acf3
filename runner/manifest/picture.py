"""
What a local picture is: its format by its content, its size and its digest.

The name of a file proves nothing: a ``.png`` that holds a JPEG is sent as what it is.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from runner.core.value import frozen
from runner.schema.media import MediaField

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_HEIF_BRANDS = (b"mif1", b"msf1")
_HEAD_BYTES = 16


@frozen
class Picture:
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


def read_picture(path: Path) -> Picture:
    """
    Read a picture; an unchanged file is read only once while it is remembered.

    Raises:
        OSError: It is missing or unreadable.
    """
    status = os.stat(path)
    return _read(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def complaints(picture: Picture, field: MediaField, model: str) -> list[str]:
    """Say what a model will not take about a picture (wire facts 1.7)."""
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
def _read(path: str, _mtime_ns: int, size: int) -> Picture:
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
    return Picture(path, sha256, size, picture_format(head), max(int(width), 0), max(int(height), 0))


def picture_format(head: bytes) -> str | None:
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
