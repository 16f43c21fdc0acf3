"""
The first picture of a video as a small JPEG, with PyAV (the extra ``media``).

Run as a program, it answers each path, a JSON line, with a JSON line: the JPEG in base64, or null. A decoder that is
given damaged files may crash or hang; in a process of its own it takes nothing else with it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from fractions import Fraction

import msgspec

from runner.media.decode import open_video

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
