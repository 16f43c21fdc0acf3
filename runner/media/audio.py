"""Read how long WAV (RIFF) and MP3 (ISO/IEC 11172-3, 13818-3) files are, and whether they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO

from runner.media.info import InvalidMedia, MediaInfo, read_at

_MAX_CHUNKS = 10_000
_CHUNK = Struct("<4sI")
_UNKNOWN_SIZE = 0xFFFFFFFF
"""What a program writes that does not know yet how long its sound will be."""

_MAX_MP3_BYTES = 64 << 20
"""Models allow a quarter of it; what is behind it is not counted."""
_MAX_JUNK_BYTES = 64 << 10
"""Between two frames, or before the first; the tags of many programs are no frames."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Samples a second, by the version in a frame's header."""
_KBITS_V1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def read_audio(file: BinaryIO, size: int) -> MediaInfo:
    """
    Read how long a WAV or MP3 file is, whatever its name.

    Raises:
        InvalidMedia: It is neither, truncated, or damaged.
    """
    head = read_at(file, 0, 12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return MediaInfo("audio/wav", duration_s=_wav_duration(file, size))
    return MediaInfo("audio/mpeg", duration_s=_mp3_duration(file))


def _wav_duration(file: BinaryIO, size: int) -> float:
    offset, bytes_per_s = 12, 0
    for _ in range(_MAX_CHUNKS):
        header = read_at(file, offset, 8)
        if len(header) < 8:
            break
        kind, length = _CHUNK.unpack(header)
        offset += 8
        if kind == b"fmt ":
            bytes_per_s = int.from_bytes(read_at(file, offset + 8, 4), "little")
        elif kind == b"data":
            if not bytes_per_s:
                raise InvalidMedia("has sound before it says how the sound is coded")
            if length in (0, _UNKNOWN_SIZE):
                length = size - offset
            if offset + length > size:
                raise InvalidMedia(f"is truncated: its sound ends at byte {offset + length} of {size}")
            return round(float(length) / bytes_per_s, 3)
        offset += length + length % 2
    raise InvalidMedia("has no sound (no data chunk)")


def _mp3_duration(file: BinaryIO) -> float:
    tag = read_at(file, 0, 10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        # Seven bits of each byte.
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    data = read_at(file, start, _MAX_MP3_BYTES)
    lengths = list(_frames(data))
    if len(lengths) < 2:
        raise InvalidMedia("has no MP3 frames")
    return round(sum(lengths), 3)


def _frames(data: bytes) -> Iterator[float]:
    """Yield how many seconds each MP3 frame lasts."""
    offset, end = 0, len(data) - 4
    while offset <= end:
        frame = _frame(data, offset)
        # Two headers that fit together: one alone may be chance.
        if frame is None or (offset + frame[0] <= end and _frame(data, offset + frame[0]) is None):
            found = next(
                (at for at in range(offset + 1, min(end, offset + _MAX_JUNK_BYTES)) if _starts(data, at)),
                None,
            )
            if frame is not None:
                yield frame[1]
            if found is None:
                return
            offset = found
            continue
        yield frame[1]
        offset += frame[0]


def _starts(data: bytes, at: int) -> bool:
    """Return whether two frames begin here, one after the other."""
    frame = _frame(data, at)
    return frame is not None and _frame(data, at + frame[0]) is not None


def _frame(data: bytes, at: int) -> tuple[int, float] | None:
    """Return the bytes and the seconds of the frame of layer III whose header is here, or None."""
    if len(data) - at < 4 or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate, kbits = data[at + 1] >> 3 & 3, data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or rate == 3 or not 0 < kbits < 15:
        return None
    per_s = _RATES[version][rate]
    samples = 1152 if version == 3 else 576
    bits_per_s = 1000 * (_KBITS_V1 if version == 3 else _KBITS_V2)[kbits - 1]
    return samples // 8 * bits_per_s // per_s + (data[at + 2] >> 1 & 1), samples / per_s
