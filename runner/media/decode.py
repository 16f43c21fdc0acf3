"""
Open a video with PyAV (the extra ``media``), and make a small JPEG of its first picture.

Run as a program, it answers each path, a JSON line, with a JSON line: the JPEG in base64, or null. A decoder that is
given damaged files may crash or hang; in a process of its own it ends nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from av.container import InputContainer


_DEMUXERS = {".mp4": "mp4", ".mov": "mov", ".webm": "webm"}


def open_video(path: str) -> InputContainer:
    """
    Open a video file, as what the end of its name says and nothing else.

    A file that calls itself a video may be a playlist, which would name other files and hosts to read.

    Raises:
        ValueError: It is not a video by its name, or has no pictures.
        av.FFmpegError, OSError: It can't be read.
    """
    import av

    demuxer = _DEMUXERS.get(os.path.splitext(path)[1].lower())
    if demuxer is None:
        raise ValueError("is not a video")
    container = av.open(path, format=demuxer)
    if not container.streams.video:
        container.close()
        raise ValueError("has no pictures")
    # One core for each process: the number of processes is what is limited.
    container.streams.video[0].codec_context.thread_count = 1
    return container


_SIDE = 320
_NICENESS = 10


def first_frame(path: str) -> bytes:
    """
    Return the first picture as a JPEG whose longer side is at most 320 pixels.

    Raises:
        ValueError: It can't be decoded, or has no picture.
    """
    import av

    try:
        with open_video(path) as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise ValueError("has no pictures")
            scale = min(1.0, _SIDE / max(frame.width, frame.height))
            # The encoder halves the resolution of the colors, which odd sizes do not allow.
            width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
            small = frame.reformat(width=width, height=height, format="yuvj420p")
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
        encoder.time_base = Fraction(1, 1)
        encoder.qmin = encoder.qmax = 6
        small.pts, small.time_base = 0, Fraction(1, 1)
        return b"".join(bytes(packet) for packet in [*encoder.encode(small), *encoder.encode(None)])
    except (av.FFmpegError, OSError, ArithmeticError) as error:
        raise ValueError(f"can't be decoded ({type(error).__name__})") from None


def main() -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    for line in sys.stdin.buffer:
        answer: str | None = None
        with contextlib.suppress(ValueError):
            answer = base64.b64encode(first_frame(msgspec.json.decode(line, type=str))).decode()
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
