"""
Write H.264 (ISO/IEC 14496-10) that needs no encoder: a grid of colors that moves, without any detail.

The numbers in brackets are sections and tables of the standard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Rgb = tuple[int, int, int]

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


def key_frame(columns: int, rows: int) -> list[bytes]:
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
    first, *rest = [escape(_bytes(part)) for part in parts]
    return [b"\x65" + first, *rest]


_FRAMES_PER_MOVE = 4
_MOVES_PER_TURN = 6
_MAX_SHIFT = (1600, 480)
"""Pixels; a little less than level 5.1 allows (table A-1)."""


def shifts(width: int, height: int, frames: int) -> Iterator[tuple[int, int] | None]:
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


def repeated_frame(macroblocks: int, number: int) -> bytes:
    """Return a P frame that repeats the frame before it, since all of its macroblocks are skipped."""
    return b"\x41" + escape(_bytes(_frame_header(number) + _ue(macroblocks) + _STOP))


def moved_frame(columns: int, rows: int, number: int, right: int, down: int) -> bytes:
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
    return b"\x41" + escape(_bytes("".join((*bits, _STOP))))


def color_samples(rgb: Rgb) -> bytes:
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


def sequence_parameters(width: int, height: int) -> bytes:
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
    return bytes([0x67, 66, 0xC0, 51]) + escape(_bytes("".join(fields) + _STOP))


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


def escape(payload: bytes) -> bytes:
    """
    Keep a payload from containing a start code (7.4.1).

    >>> escape(bytes([0, 0, 1, 5, 0, 0, 0])).hex(" ")
    '00 00 03 01 05 00 00 03 00'
    """
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


# CAVLC, and slices that may turn the deblocking filter off (7.3.2.2).
PICTURE_PARAMETERS = b"\x68" + _bytes(_ue(0) * 2 + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "100" + _STOP)
