"""
The video that a request asks for, and its last frame: a symmetric pattern drawn from the request's digest.

Every job's video differs, as a picture and as bytes, and the same request
always gives the same one. Size, shape and length are those that were asked for.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from runner.core.model import Json
from runner.simulator import media_writer

FRAMES_PER_S = 24

_DEFAULT_TIERS = {"wan2.2-kf2v-flash": 720, "wan2.1-kf2v-plus": 720, "seedance-1-5-pro-251215": 720}
"""Models whose document has another default than 1080 lines."""

_RATIOS = frozenset({"16:9", "4:3", "1:1", "3:4", "9:16", "21:9"})
"""All that any document lists; whatever else a request says, as ``adaptive``, becomes 16:9."""

_BACKGROUND, _FIGURE, _ACCENT, _BAR = range(4)
_CELL_COLOURS = (_FIGURE, _ACCENT, _BACKGROUND, _BACKGROUND)


class VideoSpec(Struct, frozen=True):
    """What a request asks for: pixels, and whole seconds."""

    digest: str
    width: int
    height: int
    seconds: int


class MediaBody(Struct, frozen=True):
    """A file, without holding its padding in memory: `head`, then zeros up to `size` bytes."""

    head: bytes
    size: int

    def __getitem__(self, span: slice) -> bytes:
        """Return the bytes of a plain slice."""
        start, stop, _ = span.indices(self.size)
        held = self.head[start:stop]
        return held + bytes(max(0, stop - start) - len(held))


def video_spec(request: Mapping[str, Json], digest: str) -> VideoSpec:
    """
    Read size and length off a request, with the documented defaults where it is silent.

    Args:
        digest: Of the request, in hex; it chooses the pattern, and the length where the model may choose it.

    >>> video_spec({"model": "wan2.7-i2v", "size": "720P", "seconds": "5"}, "00" * 32)
    VideoSpec(digest='0000000000000000000000000000000000000000000000000000000000000000', width=1280, height=720, seconds=5)
    """
    tier = str(request.get("size") or "").rstrip("pP")
    lines = int(tier) if tier.isdigit() else _DEFAULT_TIERS.get(str(request.get("model")), 1080)
    width, height = _shape(lines, str(request.get("ratio") or "16:9"))
    seconds = int(request.get("seconds") or 5)
    if seconds < 1:
        seconds = 4 + int(digest[:8], 16) % 9
    return VideoSpec(digest, width, height, seconds)


@lru_cache(maxsize=256)
def _shape(lines: int, ratio: str) -> tuple[int, int]:
    """
    Return width and height in even pixels; the shorter side has `lines`.

    >>> _shape(720, "16:9"), _shape(480, "9:16"), _shape(1080, "adaptive")
    ((1280, 720), (480, 854), (1920, 1080))
    """
    across, _, down = (ratio if ratio in _RATIOS else "16:9").partition(":")
    shape = Fraction(int(across), int(down))
    longer = 2 * round(lines * max(shape, 1 / shape) / 2)
    return (longer, lines) if shape >= 1 else (lines, longer)


def video(film: VideoSpec, *, moov_first: bool = True, with_moov: bool = True, size: int = 0) -> MediaBody:
    """
    Return an MP4 file.

    Args:
        moov_first: Whether it can be played while it loads.
        with_moov: False for a file that looks whole and can't be played.
        size: Bytes that the file is padded to; it is never cut.
    """
    template = _template(film.width, film.height, film.seconds)
    pattern = _pattern(film)
    colours = pattern.palette.samples
    # The gaps are the cells, then the bar's filled and its empty part.
    gaps = [colours[cell] for cell in pattern.cells] + [colours[_BAR], colours[_BACKGROUND]]
    key = media_writer.fill(template.key, gaps)
    media = template.media_header + template.key_length + key + template.later
    movie = (template.moov_first if moov_first else template.moov_last) if with_moov else b""
    head = media_writer.file_type() + (movie + media if moov_first else media + movie)
    # The digest itself makes the bytes differ even where two patterns agree.
    label = f"runner simulator {film.digest}".encode()
    total = max(size, len(head) + 16 + len(label))
    return MediaBody(head + media_writer.free_header(total - len(head)) + label, total)


def last_frame(film: VideoSpec) -> MediaBody:
    """Return the last frame as a PNG picture of the same size."""
    data = _last_frame(film)
    return MediaBody(data, len(data))


class _Template(Struct, frozen=True):
    """All of a file but its colours, which are alike in all videos of one size and length."""

    key: media_writer.KeyFrame
    key_length: bytes
    later: bytes
    media_header: bytes
    moov_first: bytes
    moov_last: bytes


@lru_cache(maxsize=64)
def _template(width: int, height: int, seconds: int) -> _Template:
    layout = _layout(width, height)
    key = media_writer.key_frame(layout)
    later = media_writer.later_frames(layout, seconds * FRAMES_PER_S)
    sizes = [4 + key.size, *(4 + len(frame) for frame in later)]
    track = media_writer.Track(
        width,
        height,
        FRAMES_PER_S,
        sizes,
        media_writer.sequence_parameters(layout),
        media_writer.picture_parameters(),
    )
    start, header = len(media_writer.file_type()), media_writer.media_header(track)
    moov_size = len(media_writer.movie(track, offset=0))
    return _Template(
        key=key,
        key_length=key.size.to_bytes(4, "big"),
        later=b"".join(len(frame).to_bytes(4, "big") + frame for frame in later),
        media_header=header,
        moov_first=media_writer.movie(track, offset=start + moov_size + len(header)),
        moov_last=media_writer.movie(track, offset=start + len(header)),
    )


@lru_cache(maxsize=64)
def _layout(width: int, height: int) -> media_writer.Layout:
    across, down = -(-width // media_writer.MACROBLOCK), -(-height // media_writer.MACROBLOCK)
    bar_row = down - 2
    # Cells are about square, five along the shorter side; an odd number of columns has a middle.
    side = min(across, bar_row) / 5
    columns, rows = max(5, round(across / side)) | 1, max(5, round(bar_row / side))
    return media_writer.Layout(
        width,
        height,
        tuple(across * column // columns for column in range(columns)),
        tuple(bar_row * row // rows for row in range(rows)),
        bar_row,
    )


class _Palette(Struct, frozen=True):
    """The four colours, for pictures and for videos."""

    rgb: tuple[media_writer.Rgb, ...]
    samples: tuple[bytes, ...]


@lru_cache(maxsize=512)
def _palette(number: int) -> _Palette:
    """Return one of 432 palettes: a hue for the background and the bar, and one apart from it for the figure."""
    hue, apart = number % 36 / 36, 0.25 + number // 36 % 12 / 24
    rgb = (
        _rgb(hue, 0.93, 0.45),
        _rgb(hue + apart, 0.45, 0.65),
        _rgb(hue + apart + 0.08, 0.68, 0.7),
        _rgb(hue, 0.3, 0.55),
    )
    return _Palette(rgb, tuple(media_writer.samples(*_limited(colour)) for colour in rgb))


class _Pattern(Struct, frozen=True):
    """A palette, and the number of each cell's colour, row by row."""

    palette: _Palette
    cells: tuple[int, ...]


def _pattern(film: VideoSpec) -> _Pattern:
    layout = _layout(film.width, film.height)
    draw = int(film.digest, 16)
    # A multiplier spreads the digest over as many bits as there are cells.
    bits = draw * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251
    columns = len(layout.columns)
    cells: list[int] = []
    for row in range(len(layout.rows)):
        # Two bits a cell: half of all cells are background. The right half mirrors the left.
        half = [
            _CELL_COLOURS[(bits >> 2 * (row * columns + column)) & 3] for column in range(columns // 2 + 1)
        ]
        cells += half + half[-2::-1]
    return _Pattern(_palette(draw % 432), tuple(cells))


def _rgb(hue: float, lightness: float, saturation: float) -> media_writer.Rgb:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _limited(rgb: media_writer.Rgb) -> tuple[int, int, int]:
    """
    Return a colour as luma, blue and red difference of limited range (BT.709).

    >>> _limited((0, 0, 0)), _limited((255, 255, 255))
    ((16, 128, 128), (235, 128, 128))
    """
    red, green, blue = (value / 255 for value in rgb)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (
        round(16 + 219 * luma),
        round(128 + 224 * (blue - luma) / 1.8556),
        round(128 + 224 * (red - luma) / 1.5748),
    )


@lru_cache(maxsize=256)
def _last_frame(film: VideoSpec) -> bytes:
    layout, pattern = _layout(film.width, film.height), _pattern(film)
    columns = len(layout.columns)
    # Two bits a pixel: a macroblock's width is four bytes of the same pixel four times over.
    edges = [*layout.columns, layout.across]
    widths = [4 * (edges[column + 1] - edges[column]) for column in range(columns)]
    tops = [*layout.rows, layout.bar_row]
    stripes = []
    for row in range(len(layout.rows)):
        cells = pattern.cells[row * columns : (row + 1) * columns]
        pixels = b"".join(bytes([cell * 0x55]) * width for cell, width in zip(cells, widths, strict=True))
        stripes.append((media_writer.MACROBLOCK * (tops[row + 1] - tops[row]), pixels))
    bar_height = film.height - media_writer.MACROBLOCK * layout.bar_row
    stripes.append((bar_height, bytes([_BAR * 0x55]) * sum(widths)))
    return media_writer.picture(film.width, film.height, pattern.palette.rgb, stripes)
