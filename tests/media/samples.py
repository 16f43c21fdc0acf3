"""Small complete media files, made by hand, so that every byte of them is known."""

from __future__ import annotations

from struct import pack
from zlib import compress, crc32

MATRIX = pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
ROTATED = pack(">9I", 0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000)


def box(kind: bytes, content: bytes = b"", *, wide: bool = False) -> bytes:
    """Return a box, with a 64-bit size if requested."""
    if wide:
        return pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return pack(">I4s", 8 + len(content), kind) + content


def open_box(kind: bytes, content: bytes) -> bytes:
    """Return a box without a size: it extends to the end of the file."""
    return pack(">I4s", 0, kind) + content


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")


def mvhd(seconds: float, *, version: int = 0, scale: int = 1000) -> bytes:
    ticks = round(seconds * scale)
    times = pack(">QQIQ", 0, 0, scale, ticks) if version else pack(">IIII", 0, 0, scale, ticks)
    return box(b"mvhd", pack(">I", version << 24) + times + bytes(80))


def tkhd(width: int, height: int, *, version: int = 0, matrix: bytes = MATRIX) -> bytes:
    times = bytes(32) if version else bytes(20)
    return box(
        b"tkhd",
        pack(">I", version << 24) + times + bytes(16) + matrix + pack(">II", width << 16, height << 16),
    )


def stsd(width: int, height: int) -> bytes:
    entry = box(b"avc1", bytes(24) + pack(">HH", width, height) + bytes(50))
    return box(b"stsd", pack(">II", 0, 1) + entry)


def track(header: bytes, *, handler: bytes = b"vide", tables: bytes = b"") -> bytes:
    kind = box(b"hdlr", bytes(8) + handler + bytes(12))
    return box(b"trak", header + box(b"mdia", kind + box(b"minf", box(b"stbl", tables))))


def moov(width: int = 1280, height: int = 720, seconds: float = 5.0, *, tables: bytes = b"") -> bytes:
    sound = track(tkhd(0, 0), handler=b"soun")
    return box(b"moov", mvhd(seconds) + sound + track(tkhd(width, height), tables=tables))


def mp4(payload: int = 1000, **movie: float) -> bytes:
    """Return a complete video whose `mdat` has this many bytes, which do not repeat."""
    return FTYP + moov(**movie) + box(b"mdat", noise(payload))  # type: ignore[arg-type]


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that do not repeat, and are the same each time."""
    from random import Random

    return Random(seed).randbytes(size)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return pack(">I", len(content)) + kind + content + pack(">I", crc32(kind + content))


def png(width: int = 64, height: int = 48, payload: int = 100) -> bytes:
    header = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", compress(noise(payload))) + chunk(b"IEND")


def segment(marker: int, content: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """Return the structure of a JPEG image, with a thumbnail's end inside and escaped bytes in its coded data."""
    thumbnail = segment(0xE1, b"Exif\0\0\xff\xd8\xff\xd9")
    frame = segment(0xC0, pack(">BHHB", 8, height, width, 3) + bytes(9))
    coded = b"\x12\xff\x00\x34\xff\xd0\x56" * 20
    return b"\xff\xd8" + thumbnail + frame + segment(0xDA, bytes(10)) + coded + b"\xff\xd9"


def timed_track(size: bytes, seconds: float, frame_rate: float, codec: bytes) -> bytes:
    """Return a `trak` with this `tkhd`, with a number of frames a second."""
    header = box(b"mdhd", pack(">IIIIII", 0, 0, 0, 90_000, round(seconds * 90_000), 0))
    times = box(b"stts", pack(">IIII", 0, 1, round(seconds * frame_rate), round(90_000 / frame_rate)))
    kinds = box(b"stsd", pack(">II", 0, 1) + box(codec, bytes(78)))
    kind = box(b"hdlr", bytes(8) + b"vide" + bytes(12))
    return box(b"trak", size + box(b"mdia", header + kind + box(b"minf", box(b"stbl", times + kinds))))


def clip(
    width: int,
    height: int,
    seconds: float,
    frame_rate: float = 24,
    brand: bytes = b"isom",
    codec: bytes = b"avc1",
) -> bytes:
    """Return a complete video that states how many frames a second it has."""
    content = box(b"moov", mvhd(seconds) + timed_track(tkhd(width, height), seconds, frame_rate, codec))
    return box(b"ftyp", brand + bytes(4) + brand) + content + box(b"mdat", noise(1000))


def wav(seconds: float, *, rate: int = 8000) -> bytes:
    """Return silence, with a chunk of an odd length in front of it."""
    form = pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate, 1, 8)
    data = bytes(round(seconds * rate))
    chunks = form + pack("<4sI", b"LIST", 3) + b"abc\0" + pack("<4sI", b"data", len(data)) + data
    return pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


MP3_FRAME = b"\xff\xfb\x90\xc4" + bytes(413)
"""Of 128 kbit/s at 44100 samples a second: 1152 samples."""


def mp3(seconds: float) -> bytes:
    """Return silence behind an ID3 tag of 200 bytes, and in front of one of the older kind."""
    frames = MP3_FRAME * round(seconds * 44100 / 1152)
    return b"ID3\4\0\0\0\0\1\x48" + bytes(200) + frames + b"TAG" + bytes(125)
