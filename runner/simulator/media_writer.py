"""
Write MP4 files with H.264 video and AAC sound, and PNG pictures of one color.

A video shows a grid of colors that moves to the right and back, and ends with the first color alone; its sound is a hum.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain

from msgspec import Struct

FRAMES_PER_S = 24

Rgb = tuple[int, int, int]


def png(rgb: Rgb, width: int, height: int, comment: str) -> bytes:
    """Return a picture of one color."""
    # Each row is its filter, 0 for none, and a bit for each pixel, 0 for the first color of the palette.
    rows = bytes((1 + -(-width // 8)) * height)
    chunks = {
        b"IHDR": struct.pack(">2I5B", width, height, 1, 3, 0, 0, 0),
        b"PLTE": bytes(rgb),
        b"tEXt": b"Comment\0" + comment.encode("latin-1"),
        b"IDAT": zlib.compress(rows, 1),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


# MP4 (ISO/IEC 14496-12, -14 and -15).

_MOVIE_TICKS_PER_S = 1000
_UNITY_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_TICKS_PER_FRAME = 512
_SOUND_RATE = 48_000
_SOUND_SAMPLES_PER_FRAME = 1024
# One channel with one spectral coefficient, near 850 Hz, then the end (ISO/IEC 14496-3, 4.4.2).
_SOUND_FRAME = bytes.fromhex("016c05054000004380")


class Movie(Struct, frozen=True):
    """
    A video file without its colors: the same for all videos of one size and length, with or without sound.

    Attributes:
        media: The `mdat` box, in parts; between two parts are the samples of a color.
        moov_first: The `moov` box of a file in which it precedes `mdat`.
        moov_last: The `moov` box of a file in which it follows `mdat`.
    """

    media: tuple[bytes, ...]
    moov_first: bytes
    moov_last: bytes

    def file(self, colors: Sequence[Rgb], *, moov_first: bool, with_moov: bool) -> bytes:
        """Return the file in the `CELLS` colors of its grid, without padding; a small video has fewer."""
        start, *rest = self.media
        media = start + b"".join(chain.from_iterable(zip(map(_color_samples, colors), rest, strict=False)))
        moov = (self.moov_first if moov_first else self.moov_last) if with_moov else b""
        return _FILE_TYPE + (moov + media if moov_first else media + moov)


def padding_header(size: int) -> bytes:
    """
    Return the header of a `free` box of `size` bytes in total, at least 16.

    The header is always the long one, so that a file can be padded to any size.
    """
    return struct.pack(">I4sQ", 1, b"free", size)


def movie(width: int, height: int, seconds: int, *, with_sound: bool) -> Movie:
    """Return a video of even width and height in pixels."""
    columns, rows = -(-width // 16), -(-height // 16)
    parts = _key_frame(columns, rows)
    key_frame_size = sum(map(len, parts)) + len(_color_samples((0, 0, 0))) * (len(parts) - 1)
    later = [
        _moved_frame(columns, rows, number, *shift) if shift else _repeated_frame(columns * rows, number)
        for number, shift in enumerate(_shifts(width, height, seconds * FRAMES_PER_S), 1)
    ]
    sizes = [4 + key_frame_size, *(4 + len(frame) for frame in later)]
    # The sound ends up to 21 ms before the video, not after it.
    sound_frames = seconds * _SOUND_RATE // _SOUND_SAMPLES_PER_FRAME if with_sound else 0
    media_size = 8 + sum(sizes) + sound_frames * len(_SOUND_FRAME)

    def moov(offset: int) -> bytes:
        tracks = [_video_track(width, height, sizes, offset)]
        if with_sound:
            tracks.append(_sound_track(sound_frames, offset + sum(sizes)))
        header = _full_box(
            b"mvhd",
            struct.pack(">4I", 0, 0, _MOVIE_TICKS_PER_S, seconds * _MOVIE_TICKS_PER_S),
            struct.pack(">IH10x", 0x10000, 0x100) + _UNITY_MATRIX + struct.pack(">24xI", len(tracks) + 1),
        )
        return _box(b"moov", header, *tracks)

    offset = len(_FILE_TYPE) + 8
    start, *middle, end = parts
    return Movie(
        media=(
            struct.pack(">I4sI", media_size, b"mdat", key_frame_size) + start,
            *middle,
            b"".join((end, *(struct.pack(">I", len(frame)) + frame for frame in later)))
            + _SOUND_FRAME * sound_frames,
        ),
        moov_first=moov(offset + len(moov(0))),
        moov_last=moov(offset),
    )


def _video_track(width: int, height: int, sizes: Sequence[int], offset: int) -> bytes:
    sps = _sequence_parameters(width, height)
    configuration = b"\x01" + sps[1:4] + b"\xff"
    configuration += b"\xe1" + struct.pack(">H", len(sps)) + sps
    configuration += b"\x01" + struct.pack(">H", len(_PICTURE_PARAMETERS)) + _PICTURE_PARAMETERS
    entry = _box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, width, height),
        # 72 dots an inch, one frame a sample, no compressor's name, 24 bits of color.
        struct.pack(">3IH32xHh", 0x480000, 0x480000, 0, 1, 24, -1),
        _box(b"avcC", configuration),
    )
    # Only the first frame is a key frame.
    tables = _full_box(b"stsd", struct.pack(">I", 1), entry) + _full_box(b"stss", struct.pack(">2I", 1, 1))
    header = struct.pack(">4H", 0, 0, 0, 0) + _UNITY_MATRIX + struct.pack(">2I", width << 16, height << 16)
    media_header = _full_box(b"vmhd", bytes(8), flags=1)
    rate = FRAMES_PER_S * _TICKS_PER_FRAME
    return _track(1, b"vide", rate, _TICKS_PER_FRAME, sizes, offset, header, media_header, tables)


def _sound_track(frames: int, offset: int) -> bytes:
    # AAC-LC, 48 kHz, one channel (ISO/IEC 14496-3, 1.6.2.1), within the descriptors of ISO/IEC 14496-1, 7.2.6.
    decoder = struct.pack(">2B3x2I", 0x40, 0x15, 0, 0) + b"\x05\x02\x11\x88"
    stream = bytes(3) + b"\x04" + bytes([len(decoder)]) + decoder + b"\x06\x01\x02"
    entry = _box(
        b"mp4a",
        struct.pack(">6xH8x2H4xI", 1, 1, 16, _SOUND_RATE << 16),
        _full_box(b"esds", b"\x03" + bytes([len(stream)]) + stream),
    )
    tables = _full_box(b"stsd", struct.pack(">I", 1), entry)
    header = struct.pack(">4H", 0, 0, 0x100, 0) + _UNITY_MATRIX + bytes(8)
    media_header = _full_box(b"smhd", bytes(4))
    sizes = [len(_SOUND_FRAME)] * frames
    return _track(
        2, b"soun", _SOUND_RATE, _SOUND_SAMPLES_PER_FRAME, sizes, offset, header, media_header, tables
    )


def _track(
    number: int,
    handler: bytes,
    ticks_per_s: int,
    ticks_per_sample: int,
    sizes: Sequence[int],
    offset: int,
    header: bytes,
    media_header: bytes,
    tables: bytes,
) -> bytes:
    """
    Return a `trak` box.

    Args:
        sizes: Bytes of each sample; all are in one chunk.
        offset: Where the first sample is in the file. It does not change the size of the box.
        header: The end of the `tkhd` box.
        tables: The boxes of the sample table that differ between video and sound.
    """
    count, length = len(sizes), len(sizes) * ticks_per_sample
    duration = length * _MOVIE_TICKS_PER_S // ticks_per_s
    table = _box(
        b"stbl",
        tables,
        _full_box(b"stts", struct.pack(">3I", 1, count, ticks_per_sample)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full_box(b"stsz", struct.pack(f">2I{count}I", 0, count, *sizes)),
        _full_box(b"stco", struct.pack(">2I", 1, offset)),
    )
    # Flags 1: the samples are in this file.
    reference = _full_box(b"dref", struct.pack(">I", 1), _full_box(b"url ", flags=1))
    media = _box(
        b"mdia",
        # The language is undetermined.
        _full_box(b"mdhd", struct.pack(">4I2H", 0, 0, ticks_per_s, length, 0x55C4, 0)),
        _full_box(b"hdlr", struct.pack(">I4s12x", 0, handler), b"runner\0"),
        _box(b"minf", media_header, _box(b"dinf", reference), table),
    )
    # Flags 3: the track is enabled, and part of the presentation.
    times = struct.pack(">5I8x", 0, 0, number, 0, duration)
    return _box(b"trak", _full_box(b"tkhd", times, header, flags=3), media)


def _box(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def _full_box(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", flags), *parts)


_FILE_TYPE = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")


# H.264 (ISO/IEC 14496-10): the numbers in brackets are its sections and tables.

# mb_type, intra_chroma_pred_mode and mb_qp_delta 0 (7.3.5): repeat the pixels at the left edge, or above.
_COPY_LEFT = "011" + "010" + "1"
_COPY_ABOVE = "010" + "011" + "1"
_RAW = "000011010"
# coeff_token without coefficients (table 9-5), next to ordinary macroblocks and next to a raw one, which counts as 16.
_NO_COEFFICIENTS = "1"
_NO_COEFFICIENTS_NEXT_TO_RAW = "000011"
# The end of every payload, before it is filled up to whole bytes (7.3.2.11).
_STOP = "1"

CELLS = 16
"""Colors of the grid, row by row."""
_CELLS_PER_SIDE = 4


def _key_frame(columns: int, rows: int) -> list[bytes]:
    """
    Return the first frame, in parts between which are the colors of the grid.

    The first macroblock of each cell is raw; the first row of a cell copies it to the right, and the others copy
    what is above them.
    """
    # first_mb, slice_type I, pps, frame_num, idr_pic_id, no_output/long_term, qp_delta, deblocking off (7.3.3)
    bits = [_ue(0) + _ue(7) + _ue(0) + "0000" + _ue(0) + "00" + _ue(0) + _ue(1)]
    firsts_x = {columns * cell // _CELLS_PER_SIDE for cell in range(_CELLS_PER_SIDE)}
    firsts_y = {rows * cell // _CELLS_PER_SIDE for cell in range(_CELLS_PER_SIDE)}
    parts = []
    for y in range(rows):
        copy = _COPY_LEFT if y in firsts_y else _COPY_ABOVE
        for x in range(columns):
            if y in firsts_y and x in firsts_x:
                parts.append("".join((*bits, _RAW)))
                bits = []
                continue
            left_is_raw = y in firsts_y and x - 1 in firsts_x
            is_next_to_raw = left_is_raw or (y - 1 in firsts_y and x in firsts_x)
            bits.append(copy + (_NO_COEFFICIENTS_NEXT_TO_RAW if is_next_to_raw else _NO_COEFFICIENTS))
    parts.append("".join((*bits, _STOP)))
    first, *rest = [_escape(_bytes(part)) for part in parts]
    return [b"\x65" + first, *rest]


_FRAMES_PER_MOVE = 4
_MOVES_PER_TURN = 6
_MAX_SHIFT = (1600, 480)
"""Pixels; a little less than level 5.1 allows (table A-1)."""


def _shifts(width: int, height: int, frames: int) -> Iterator[tuple[int, int] | None]:
    """
    Yield, for each frame but the first, how far its picture is moved right and down in pixels; None for not at all.

    The pixels at an edge are repeated beyond it. So the first color fills the picture in the end, and nothing else
    moves it out of its corner.
    """
    last = max(-(-width // _MAX_SHIFT[0]), -(-height // _MAX_SHIFT[1]))
    step = 2 * max(1, width // 8 // _MOVES_PER_TURN // 2)
    for number in range(1, frames):
        move, rest = divmod(number, _FRAMES_PER_MOVE)
        if number >= frames - last:
            yield min(width, _MAX_SHIFT[0]), min(height, _MAX_SHIFT[1])
        elif rest:
            yield None
        else:
            yield step if (move - 1) // _MOVES_PER_TURN % 2 == 0 else -step, 0


def _frame_header(number: int) -> str:
    # first_mb, slice_type P, pps, frame_num, three flags, qp_delta, deblocking off (7.3.3)
    return _ue(0) + _ue(5) + _ue(0) + f"{number % 16:04b}" + "000" + _ue(0) + _ue(1)


def _repeated_frame(macroblocks: int, number: int) -> bytes:
    """Return a P frame that repeats the frame before it, since all of its macroblocks are skipped."""
    return b"\x41" + _escape(_bytes(_frame_header(number) + _ue(macroblocks) + _STOP))


def _moved_frame(columns: int, rows: int, number: int, right: int, down: int) -> bytes:
    """
    Return a P frame that shows the frame before it, moved by some pixels.

    A skipped macroblock moves as its neighbors do, but only if it has some on both sides (8.4.1.1). The others state
    that they differ by nothing from what is predicted for them: mb_skip_run, mb_type, mvd_l0 twice,
    coded_block_pattern (7.3.5).
    """
    as_predicted = _ue(0) + _se(0) + _se(0) + _ue(0)
    # In quarters of a pixel, from the new position to the old one.
    first = _ue(0) + _se(-4 * right) + _se(-4 * down) + _ue(0)
    skipped = _ue(columns - 1)
    bits = [_frame_header(number), _ue(0) + first, (_ue(0) + as_predicted) * (columns - 1)]
    bits += [_ue(0) + as_predicted] if rows > 1 else []
    bits += [skipped + as_predicted] * (rows - 2)
    bits += [skipped] if rows > 1 and columns > 1 else []
    return b"\x41" + _escape(_bytes("".join((*bits, _STOP))))


def _color_samples(rgb: Rgb) -> bytes:
    """
    Return a raw macroblock of one color: 4:2:0, BT.709, each value from 16 to 240.

    No value is small, so the samples can't look like a start code (7.4.1) and never need escaping.
    """
    red, green, blue = (value / 255 for value in rgb)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma_blue, chroma_red = (blue - luma) / 1.8556, (red - luma) / 1.5748
    return b"".join(
        (
            bytes([round(16 + 219 * luma)]) * 256,
            bytes([round(128 + 224 * chroma_blue)]) * 64,
            bytes([round(128 + 224 * chroma_red)]) * 64,
        )
    )


def _sequence_parameters(width: int, height: int) -> bytes:
    """Return the SPS: Constrained Baseline, one reference frame, output in decoding order (7.3.2.1)."""
    columns, rows = -(-width // 16), -(-height // 16)
    # Cropping counts in pairs of pixels, since chroma has half the resolution.
    crop_right, crop_bottom = (columns * 16 - width) // 2, (rows * 16 - height) // 2
    fields = (
        _ue(0),  # seq_parameter_set_id
        _ue(0),  # log2_max_frame_num - 4
        _ue(2),  # pic_order_cnt_type: output order is decoding order
        _ue(1),  # max_num_ref_frames
        "0",
        _ue(columns - 1),
        _ue(rows - 1),
        "1",  # frames only, no fields
        "1",  # direct_8x8_inference
        "1" + _ue(0) + _ue(crop_right) + _ue(0) + _ue(crop_bottom),
        # VUI: no aspect ratio, no overscan; limited range, BT.709 thrice; nothing else (E.1.1).
        "1" + "00" + "1" + "101" + "0" + "1" + "00000001" * 3 + "000000",
    )
    # Level 5.1 allows all sizes that there are.
    return bytes([0x67, 66, 0xC0, 51]) + _escape(_bytes("".join(fields) + _STOP))


def _ue(value: int) -> str:
    """
    Return the bits of an unsigned Exp-Golomb number (9.1).

    >>> [_ue(value) for value in range(4)]
    ['1', '010', '011', '00100']
    """
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _se(value: int) -> str:
    """
    Return the bits of a signed Exp-Golomb number (9.1.1).

    >>> [_se(value) for value in (0, 1, -1, 2)]
    ['1', '010', '011', '00100']
    """
    return _ue(2 * value - 1 if value > 0 else -2 * value)


def _bytes(bits: str) -> bytes:
    """Return bits as bytes, the last one filled with zeros."""
    padded = bits + "0" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


def _escape(payload: bytes) -> bytes:
    """
    Keep a payload from containing a start code (7.4.1).

    >>> _escape(bytes([0, 0, 1, 5, 0, 0, 0])).hex(" ")
    '00 00 03 01 05 00 00 03 00'
    """
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


# CAVLC, and slices that may turn the deblocking filter off (7.3.2.2).
_PICTURE_PARAMETERS = b"\x68" + _bytes(_ue(0) * 2 + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "100" + _STOP)
