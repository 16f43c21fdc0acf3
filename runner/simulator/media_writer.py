"""
Write MP4 files with H.264 video and AAC sound, QuickTime files with PCM sound, and PNG pictures of one color.

A video shows a grid of colors that moves to the right and back, and ends with the first color alone; its sound is a hum.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import chain, cycle, islice

from msgspec import Struct

from runner.simulator.h264 import (
    PICTURE_PARAMETERS,
    Rgb,
    color_samples,
    key_frame,
    moved_frame,
    repeated_frame,
    sequence_parameters,
    shifts,
)

FRAMES_PER_S = 24


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


class _Sound(Struct, frozen=True):
    """
    How sound is coded, in one channel.

    Attributes:
        entry: The box in the sample table that describes it.
        rate: Of values, per second.
        values_per_sample: Of the container's samples.
        samples: The bytes of each of them, which are repeated; all have one size.
    """

    entry: bytes
    rate: int
    values_per_sample: int
    samples: tuple[bytes, ...]

    def count(self, seconds: int) -> int:
        """Return how many samples fit into a video, so that the sound ends up to 21 ms before it, not after it."""
        return seconds * self.rate // self.values_per_sample

    def media(self, count: int) -> bytes:
        """Return a number of samples."""
        return b"".join(islice(cycle(self.samples), count))


class Movie(Struct, frozen=True):
    """
    A video file without its colors: the same for all videos of one size and length, with or without sound.

    Attributes:
        file_type: The `ftyp` box.
        media: The `mdat` box, in parts; between two parts are the samples of a color.
        moov_first: The `moov` box of a file in which it precedes `mdat`.
        moov_last: The `moov` box of a file in which it follows `mdat`.
    """

    file_type: bytes
    media: tuple[bytes, ...]
    moov_first: bytes
    moov_last: bytes

    def file(self, colors: Sequence[Rgb], *, moov_first: bool, with_moov: bool) -> bytes:
        """Return the file in the `CELLS` colors of its grid, without padding; a small video has fewer."""
        start, *rest = self.media
        media = start + b"".join(chain.from_iterable(zip(map(color_samples, colors), rest, strict=False)))
        moov = (self.moov_first if moov_first else self.moov_last) if with_moov else b""
        return self.file_type + (moov + media if moov_first else media + moov)


def padding_header(size: int) -> bytes:
    """
    Return the header of a `free` box of `size` bytes in total, at least 16.

    The header is always the long one, so that a file can be padded to any size.
    """
    return struct.pack(">I4sQ", 1, b"free", size)


def movie(width: int, height: int, seconds: int, *, with_sound: bool, is_quicktime: bool = False) -> Movie:
    """Return a video of even width and height in pixels."""
    columns, rows = -(-width // 16), -(-height // 16)
    parts = key_frame(columns, rows)
    key_frame_size = sum(map(len, parts)) + len(color_samples((0, 0, 0))) * (len(parts) - 1)
    later = [
        moved_frame(columns, rows, number, *shift) if shift else repeated_frame(columns * rows, number)
        for number, shift in enumerate(shifts(width, height, seconds * FRAMES_PER_S), 1)
    ]
    sizes = [4 + key_frame_size, *(4 + len(frame) for frame in later)]
    sound = _PCM if is_quicktime else _AAC
    sound_samples = sound.count(seconds) if with_sound else 0
    sound_media = sound.media(sound_samples)
    media_size = 8 + sum(sizes) + len(sound_media)

    def moov(offset: int) -> bytes:
        tracks = [_video_track(width, height, sizes, offset)]
        if with_sound:
            tracks.append(_sound_track(sound, sound_samples, offset + sum(sizes)))
        header = _full_box(
            b"mvhd",
            struct.pack(">4I", 0, 0, _MOVIE_TICKS_PER_S, seconds * _MOVIE_TICKS_PER_S),
            struct.pack(">IH10x", 0x10000, 0x100) + _UNITY_MATRIX + struct.pack(">24xI", len(tracks) + 1),
        )
        return _box(b"moov", header, *tracks)

    file_type = _QUICKTIME if is_quicktime else _MP4
    offset = len(file_type) + 8
    start, *middle, end = parts
    return Movie(
        file_type=file_type,
        media=(
            struct.pack(">I4sI", media_size, b"mdat", key_frame_size) + start,
            *middle,
            b"".join((end, *(struct.pack(">I", len(frame)) + frame for frame in later))) + sound_media,
        ),
        moov_first=moov(offset + len(moov(0))),
        moov_last=moov(offset),
    )


def _video_track(width: int, height: int, sizes: Sequence[int], offset: int) -> bytes:
    sps = sequence_parameters(width, height)
    configuration = b"\x01" + sps[1:4] + b"\xff"
    configuration += b"\xe1" + struct.pack(">H", len(sps)) + sps
    configuration += b"\x01" + struct.pack(">H", len(PICTURE_PARAMETERS)) + PICTURE_PARAMETERS
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


def _sound_track(sound: _Sound, samples: int, offset: int) -> bytes:
    tables = _full_box(b"stsd", struct.pack(">I", 1), sound.entry)
    header = struct.pack(">4H", 0, 0, 0x100, 0) + _UNITY_MATRIX + bytes(8)
    media_header = _full_box(b"smhd", bytes(4))
    sizes = [len(sound.samples[0])] * samples
    return _track(
        2, b"soun", sound.rate, sound.values_per_sample, sizes, offset, header, media_header, tables
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
    # A size that all samples share is written once.
    common = sizes[0] if len(set(sizes)) == 1 else 0
    count, length = len(sizes), len(sizes) * ticks_per_sample
    duration = length * _MOVIE_TICKS_PER_S // ticks_per_s
    table = _box(
        b"stbl",
        tables,
        _full_box(b"stts", struct.pack(">3I", 1, count, ticks_per_sample)),
        _full_box(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full_box(
            b"stsz", struct.pack(">2I", common, count), b"" if common else struct.pack(f">{count}I", *sizes)
        ),
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


def _sound_entry(kind: bytes, rate: int, *boxes: bytes) -> bytes:
    return _box(kind, struct.pack(">6xH8x2H4xI", 1, 1, 16, rate << 16), *boxes)


def _aac_configuration() -> bytes:
    """Return that of AAC-LC, 48 kHz, one channel (ISO/IEC 14496-3, 1.6.2.1), in the descriptors of ISO/IEC 14496-1, 7.2.6."""
    decoder = struct.pack(">2B3x2I", 0x40, 0x15, 0, 0) + b"\x05\x02\x11\x88"
    stream = bytes(3) + b"\x04" + bytes([len(decoder)]) + decoder + b"\x06\x01\x02"
    return _full_box(b"esds", b"\x03" + bytes([len(stream)]) + stream)


_MP4 = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")
_QUICKTIME = _box(b"ftyp", b"qt  ", struct.pack(">I", 0x200), b"qt  ")
# One channel with one spectral coefficient, near 850 Hz, then the end (ISO/IEC 14496-3, 4.4.2).
_AAC = _Sound(
    _sound_entry(b"mp4a", 48_000, _aac_configuration()), 48_000, 1024, (bytes.fromhex("016c05054000004380"),)
)
# A square wave of 400 Hz, 16 bits, little endian (QuickTime File Format, sound media).
_PCM = _Sound(
    _sound_entry(b"sowt", 8000), 8000, 1, (struct.pack("<h", 2000),) * 10 + (struct.pack("<h", -2000),) * 10
)
