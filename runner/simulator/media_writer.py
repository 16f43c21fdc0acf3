"""Mux one H.264 track into an MP4 file (ISO/IEC 14496-12 and -15)."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

TICKS_PER_FRAME = 512
"""Of the track's clock; the usual choice, which divides evenly for every frame rate."""

_MOVIE_CLOCK = 1000
_UNITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_LANGUAGE_UNDETERMINED = 0x55C4


class Track(Struct, frozen=True):
    """
    What the file says of its one track.

    Attributes:
        sizes: Bytes of each frame, the four of its length included; the first is the only key frame.
    """

    width: int
    height: int
    frames_per_s: int
    sizes: Sequence[int]
    sps: bytes
    pps: bytes


def box(name: bytes, *parts: bytes) -> bytes:
    """Return a box with its header."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def free_header(size: int) -> bytes:
    """
    Return the header of a `free` box of `size` bytes in all, 16 or more.

    The header is always the long one, so a file can be padded to any size.
    """
    return struct.pack(">I4sQ", 1, b"free", size)


def file_type() -> bytes:
    """Return the `ftyp` box."""
    return box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")


def media_header(track: Track) -> bytes:
    """Return the header of the `mdat` box; the frames follow."""
    return struct.pack(">I4s", 8 + sum(track.sizes), b"mdat")


def movie(track: Track, *, offset: int) -> bytes:
    """
    Return the `moov` box.

    Args:
        offset: Where in the file the first frame starts. The box is of the same size for each.
    """
    seconds = len(track.sizes) / track.frames_per_s
    duration = round(seconds * _MOVIE_CLOCK)
    header = _full_box(
        b"mvhd",
        struct.pack(">4I", 0, 0, _MOVIE_CLOCK, duration),
        struct.pack(">IH10x", 0x10000, 0x100),
        _UNITY,
        struct.pack(">24xI", 2),
    )
    return box(b"moov", header, _track(track, duration, offset))


def _track(track: Track, duration: int, offset: int) -> bytes:
    # Flags 3: the track is enabled, and part of the presentation.
    header = _full_box(
        b"tkhd",
        struct.pack(">5I8x4H", 0, 0, 1, 0, duration, 0, 0, 0, 0),
        _UNITY,
        struct.pack(">2I", track.width << 16, track.height << 16),
        flags=3,
    )
    return box(b"trak", header, _media(track, offset))


def _media(track: Track, offset: int) -> bytes:
    clock = track.frames_per_s * TICKS_PER_FRAME
    length = len(track.sizes) * TICKS_PER_FRAME
    header = _full_box(b"mdhd", struct.pack(">4I2H", 0, 0, clock, length, _LANGUAGE_UNDETERMINED, 0))
    handler = _full_box(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"VideoHandler\0")
    # Flags 1: the frames are in this very file.
    reference = _full_box(b"dref", struct.pack(">I", 1), _full_box(b"url ", flags=1))
    information = box(
        b"minf",
        _full_box(b"vmhd", bytes(8), flags=1),
        box(b"dinf", reference),
        _sample_table(track, offset),
    )
    return box(b"mdia", header, handler, information)


def _sample_table(track: Track, offset: int) -> bytes:
    count = len(track.sizes)
    return box(
        b"stbl",
        _full_box(b"stsd", struct.pack(">I", 1), _sample_entry(track)),
        _full_box(b"stts", struct.pack(">3I", 1, count, TICKS_PER_FRAME)),
        _full_box(b"stss", struct.pack(">2I", 1, 1)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full_box(b"stsz", struct.pack(f">2I{count}I", 0, count, *track.sizes)),
        _full_box(b"stco", struct.pack(">2I", 1, offset)),
    )


def _sample_entry(track: Track) -> bytes:
    configuration = (
        b"\x01"
        + track.sps[1:4]
        + b"\xff\xe1"
        + struct.pack(">H", len(track.sps))
        + track.sps
        + b"\x01"
        + struct.pack(">H", len(track.pps))
        + track.pps
    )
    return box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, track.width, track.height),
        # 72 dots an inch, one frame a sample, no compressor's name, 24 bits of colour.
        struct.pack(">3IH32xHh", 0x480000, 0x480000, 0, 1, 24, -1),
        box(b"avcC", configuration),
    )


def _full_box(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", flags), *parts)


Rgb = tuple[int, int, int]


def picture(width: int, height: int, palette: Sequence[Rgb], stripes: Iterable[tuple[int, bytes]]) -> bytes:
    """
    Return a palette picture of two bits a pixel.

    Args:
        palette: Up to four colours.
        stripes: Rows of pixels from the top: how often each is repeated, and its packed pixels, four to a byte.
    """
    row_bytes = -(-width // 4)
    # Every row starts with its filter: 0 for none.
    rows = b"".join((b"\0" + pixels[:row_bytes]) * repeat for repeat, pixels in stripes)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, 2, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


MACROBLOCK = 16
"""Pixels of a macroblock's side."""

_LEVELS = ((1620, 30), (3600, 31), (8192, 40), (36864, 51))
"""Macroblocks in a frame, and the lowest level that allows them at 24 frames a second (table A-1)."""

# mb_type, intra_chroma_pred_mode, mb_qp_delta 0 (7.3.5); the luma and the chroma mode have different numbers.
_COPY_LEFT = "011" + "010" + "1"
_COPY_UPPER = "010" + "011" + "1"
_RAW = "000011010"
# In a P slice the intra types follow the five inter ones (7.4.5): 5 + 2.
_COPY_LEFT_IN_P = "0001000" + "010" + "1"
# coeff_token without coefficients (table 9-5), beside ordinary neighbours and beside an I_PCM one, which counts as 16.
_NOTHING = "1"
_NOTHING_BESIDE_RAW = "000011"


class Layout(Struct, frozen=True):
    """
    Where colours may start, in macroblocks.

    Attributes:
        width, height: Of the visible picture in pixels, both even.
        columns: Where each column of cells starts; the first is 0.
        rows: Where each row of cells starts; the first is 0.
        bar_row: Where the bar starts; it goes on to the lower edge.
    """

    width: int
    height: int
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    bar_row: int

    @property
    def across(self) -> int:
        """Macroblocks in a row; the last may lie partly outside the picture."""
        return -(-self.width // MACROBLOCK)

    @property
    def down(self) -> int:
        """Rows of macroblocks."""
        return -(-self.height // MACROBLOCK)

    @property
    def cells(self) -> int:
        """Cells in the picture, without the bar."""
        return len(self.columns) * len(self.rows)


class KeyFrame(Struct, frozen=True):
    """
    A first frame without its colours: `parts` with a macroblock's samples between each two.

    There are as many gaps as the layout has cells, row by row, and two more:
    the filled and the empty part of the bar.
    """

    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of the frame with its colours."""
        return sum(map(len, self.parts)) + (len(self.parts) - 1) * len(samples(16, 16, 16))


@lru_cache(maxsize=1024)
def samples(luma: int, blue: int, red: int) -> bytes:
    """
    Return a macroblock of one colour in 4:2:0, each value from 16 to 240.

    No value is small, so the samples can't imitate a start code (7.4.1) and never need escaping.
    """
    return bytes([luma]) * 256 + bytes([blue]) * 64 + bytes([red]) * 64


def sequence_parameters(layout: Layout) -> bytes:
    """Return the SPS: Constrained Baseline, one reference frame, output in decoding order (7.3.2.1)."""
    macroblocks = layout.across * layout.down
    level = next(level for most, level in _LEVELS if macroblocks <= most)
    # Cropping counts in pairs of pixels, since chroma has half the resolution.
    crop_right = (layout.across * MACROBLOCK - layout.width) // 2
    crop_bottom = (layout.down * MACROBLOCK - layout.height) // 2
    fields = (
        _ue(0),  # seq_parameter_set_id
        _ue(0),  # log2_max_frame_num - 4
        _ue(2),  # pic_order_cnt_type: output order is decoding order
        _ue(1),  # max_num_ref_frames
        "0",
        _ue(layout.across - 1),
        _ue(layout.down - 1),
        "1",  # frames only, no fields
        "1",  # direct_8x8_inference
        "1" + _ue(0) + _ue(crop_right) + _ue(0) + _ue(crop_bottom),
        "1" + _COLOUR_IS_BT709,
    )
    return bytes([0x67, 66, 0xC0, level]) + _escaped(_closed("".join(fields)))


# VUI: no aspect ratio, no overscan; limited range, BT.709 thrice; nothing else (E.1.1).
_COLOUR_IS_BT709 = "00" + "1" + "101" + "0" + "1" + "00000001" * 3 + "0" + "0" + "0" + "0" + "0" + "0"


def picture_parameters() -> bytes:
    """Return the PPS: CAVLC, and slices that may turn the deblocking filter off (7.3.2.2)."""
    fields = _ue(0) + _ue(0) + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "100"
    return b"\x68" + _escaped(_closed(fields))


def key_frame(layout: Layout) -> KeyFrame:
    """Return the first frame of a layout, with gaps for the colours."""
    raw = {(x, y) for y in layout.rows for x in layout.columns} | {(0, layout.bar_row), (1, layout.bar_row)}
    first_rows = {*layout.rows, layout.bar_row}
    parts: list[bytes] = []
    # first_mb, slice_type I, pps, frame_num, idr_pic_id, no_output/long_term, qp_delta, deblocking off (7.3.3)
    bits = [_ue(0), _ue(7), _ue(0), "0000", _ue(0), "00", _ue(0), _ue(1)]
    before = b"\x65"
    for y in range(layout.down):
        for x in range(layout.across):
            if (x, y) in raw:
                parts.append(before + _escaped(_bytes("".join(bits) + _RAW)))
                bits, before = [], b""
                continue
            is_beside_raw = (x - 1, y) in raw or (x, y - 1) in raw
            bits.append(_COPY_LEFT if y in first_rows else _COPY_UPPER)
            bits.append(_NOTHING_BESIDE_RAW if is_beside_raw else _NOTHING)
    parts.append(_escaped(_closed("".join(bits))))
    return KeyFrame(tuple(parts))


def later_frames(layout: Layout, frames: int) -> list[bytes]:
    """
    Return the frames after the first, ``frames - 1`` of them.

    Each repeats the frame before it, but for the columns that the bar moves into.
    The bar has one column in the first frame and is full in the last.
    """
    filled = [max(1, layout.across * frame // (frames - 1)) for frame in range(frames)]
    return [_moved(layout, frame, filled[frame - 1], filled[frame]) for frame in range(1, frames)]


def _moved(layout: Layout, frame: int, filled: int, target: int) -> bytes:
    """Return a P frame that grows the bar from `filled` columns to `target`."""
    # first_mb, slice_type P, pps, frame_num, three flags, qp_delta, deblocking off
    bits = [_ue(0), _ue(5), _ue(0), f"{frame % 16:04b}", "000", _ue(0), _ue(1)]
    skipped = 0
    if target > filled:
        skipped = layout.bar_row * layout.across
        for _ in range(layout.bar_row, layout.down):
            skipped += filled
            for _ in range(filled, target):
                bits += [_ue(skipped), _COPY_LEFT_IN_P, _NOTHING]
                skipped = 0
            skipped = layout.across - target
    else:
        skipped = layout.across * layout.down
    if skipped:
        bits.append(_ue(skipped))
    return b"\x41" + _escaped(_closed("".join(bits)))


def fill(frame: KeyFrame, colours: Sequence[bytes]) -> bytes:
    """Return a first frame with its colours, each as `samples` gives it."""
    pieces = [frame.parts[0]]
    for colour, part in zip(colours, frame.parts[1:], strict=True):
        pieces += (colour, part)
    return b"".join(pieces)


def _ue(value: int) -> str:
    """
    Write an unsigned Exp-Golomb number (9.1).

    >>> [_ue(value) for value in range(4)]
    ['1', '010', '011', '00100']
    """
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _closed(bits: str) -> bytes:
    """End a payload with its stop bit (7.3.2.11)."""
    return _bytes(bits + "1")


def _bytes(bits: str) -> bytes:
    """Write bits as bytes, with zeros to the end of the last."""
    padded = bits + "0" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


def _escaped(payload: bytes) -> bytes:
    """
    Keep a payload from imitating a start code (7.4.1).

    >>> _escaped(bytes([0, 0, 1, 5, 0, 0, 0])).hex(" ")
    '00 00 03 01 05 00 00 03 00'
    """
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)
