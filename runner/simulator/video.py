"""
The video that a request asks for, and its last frame: colors that move, chosen by the request's digest.

The same request always gets the same bytes, and different requests different ones. Size, ratio and length
are those of the request. A video has sound, which is a hum, if the request asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from runner.core.model import Json, asks_for_sound
from runner.simulator import h264, media_writer

_WITH_720_BY_DEFAULT = ("wan2.2-kf2v", "wan2.1-kf2v", "seedance-1-5", "dreamina-seedance")
"""Beginnings of the names of models whose page has a default other than 1080 lines."""

_SIZE = re.compile(r"([0-9]{2,4})[pP]|([0-9]{2,4})x([0-9]{2,4})|4[kK]")
_MAX_SECONDS = 60

_RATIOS = frozenset({"16:9", "4:3", "1:1", "3:4", "9:16", "21:9"})
"""All that any document lists. Any other value, such as ``adaptive``, becomes 16:9."""


class VideoSpec(Struct, frozen=True):
    """
    What a request asks for.

    Attributes:
        digest: Of the request, in hex.
        width, height: In pixels, both even.
    """

    digest: str
    width: int
    height: int
    seconds: int
    has_sound: bool = False
    is_quicktime: bool = False

    @property
    def file_name(self) -> str:
        """What the file is called: ``video.mp4``, or ``video.mov`` if it is a QuickTime file."""
        return "video.mov" if self.is_quicktime else "video.mp4"

    @property
    def content_type(self) -> str:
        """Of the file."""
        return "video/quicktime" if self.is_quicktime else "video/mp4"

    @property
    def color(self) -> h264.Rgb:
        """Red, green and blue of the last frame."""
        red, green, blue = bytes.fromhex(self.digest[:6])
        return red, green, blue

    @property
    def colors(self) -> tuple[h264.Rgb, ...]:
        """The colors of the grid that moves: the first one is that of the last frame, and the others are not dark."""
        red, green, blue = self.color
        levels = (72 + 2 * byte // 3 for byte in bytes.fromhex(self.digest[6 : 4 + 2 * h264.CELLS]))
        return (
            self.color,
            *(
                ((red + 3 * level) // 4, (green + 3 * level) // 4, (blue + 3 * level) // 4)
                for level in levels
            ),
        )


class MediaBody(Struct, frozen=True):
    """A file whose padding is not in memory: `head`, then zeros up to `size` bytes."""

    head: bytes
    size: int

    def __getitem__(self, span: slice) -> bytes:
        """Return the bytes of a slice without a step."""
        start, stop, _ = span.indices(self.size)
        part = self.head[start:stop]
        return part + bytes(max(0, stop - start) - len(part))


def video_spec(request: Mapping[str, Json], digest: str) -> VideoSpec:
    """
    Return what a request asks for, with the documented defaults for absent fields.

    Args:
        digest: Of the request, in hex. It chooses the color, and the length if the model may choose it.

    >>> spec = video_spec({"model": "wan2.7-i2v", "size": "720P", "seconds": "5"}, "00" * 32)
    >>> spec.width, spec.height, spec.seconds, spec.has_sound
    (1280, 720, 5, False)
    """
    model = str(request.get("model"))
    default = 720 if model.startswith(_WITH_720_BY_DEFAULT) else 1080
    width, height = _size(str(request.get("size") or ""), str(request.get("ratio") or "16:9"), default)
    # A request without a schema may have anything here.
    text = str(request.get("seconds") or 5)
    seconds = min(int(text), _MAX_SECONDS) if text.isdecimal() and len(text) < 9 else 0
    if seconds < 1:
        seconds = 4 + int(digest[:8], 16) % 9
    is_quicktime = request.get("output_format") == "mov"
    return VideoSpec(digest, width, height, seconds, asks_for_sound(request), is_quicktime)


def _size(size: str, ratio: str, default_lines: int) -> tuple[int, int]:
    """
    Return width and height of a size as any page or SDK writes it.

    >>> _size("720P", "16:9", 1080), _size("1280x720", "1:1", 1080), _size("4k", "1:1", 1080), _size("?", "1:1", 480)
    ((1280, 720), (1280, 720), (2160, 2160), (480, 480))
    """
    found = _SIZE.fullmatch(size)
    if found is None:
        return _dimensions(default_lines, ratio)
    if found[2]:
        return 2 * (int(found[2]) // 2), 2 * (int(found[3]) // 2)
    return _dimensions(2 * (int(found[1]) // 2) if found[1] else 2160, ratio)


@lru_cache(maxsize=256)
def _dimensions(lines: int, ratio: str) -> tuple[int, int]:
    """
    Return width and height in even pixels; the shorter side has `lines`.

    >>> _dimensions(720, "16:9"), _dimensions(480, "9:16"), _dimensions(1080, "adaptive")
    ((1280, 720), (480, 854), (1920, 1080))
    """
    horizontal, _, vertical = (ratio if ratio in _RATIOS else "16:9").partition(":")
    shape = Fraction(int(horizontal), int(vertical))
    longer = 2 * round(lines * max(shape, 1 / shape) / 2)
    return (longer, lines) if shape >= 1 else (lines, longer)


def video(spec: VideoSpec, *, moov_first: bool = True, with_moov: bool = True, size: int = 0) -> MediaBody:
    """
    Return an MP4 file, or a QuickTime file if the request asks for one.

    Args:
        moov_first: Whether it can be played while it loads.
        with_moov: False for a file that has the right length and can't be played.
        size: Bytes that the file is padded to; it is never shortened.
    """
    movie = _movie(spec.width, spec.height, spec.seconds, spec.has_sound, spec.is_quicktime)
    head = movie.file(spec.colors, moov_first=moov_first, with_moov=with_moov)
    # The bytes differ even if two requests get the same color.
    label = _label(spec).encode()
    total = max(size, len(head) + 16 + len(label))
    return MediaBody(head + media_writer.padding_header(total - len(head)) + label, total)


@lru_cache(maxsize=256)
def last_frame(spec: VideoSpec) -> MediaBody:
    """Return the last frame as a PNG picture of the same size."""
    picture = media_writer.png(spec.color, spec.width, spec.height, _label(spec))
    return MediaBody(picture, len(picture))


@lru_cache(maxsize=64)
def _movie(width: int, height: int, seconds: int, with_sound: bool, is_quicktime: bool) -> media_writer.Movie:
    return media_writer.movie(width, height, seconds, with_sound=with_sound, is_quicktime=is_quicktime)


def _label(spec: VideoSpec) -> str:
    return f"runner simulator {spec.digest}"
