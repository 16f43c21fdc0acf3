"""
What a downloaded file says of itself: whether it is whole, and what is in it.

Files are looked at piece by piece and never held in memory.
"""

from __future__ import annotations

from runner.media.facts import Flawed, MediaFacts, Readable, read_at
from runner.media.jpeg import SIGNATURE as JPEG_SIGNATURE
from runner.media.jpeg import read_jpeg
from runner.media.mp4 import read_mp4
from runner.media.png import SIGNATURE as PNG_SIGNATURE
from runner.media.png import read_png

__all__ = ["Flawed", "MediaFacts", "Readable", "read_jpeg", "read_mp4", "read_picture", "read_png"]


def read_picture(file: Readable, size: int) -> MediaFacts:
    """
    Make sure that a file is a whole PNG or JPEG picture, by its own first bytes, and read its size in pixels.

    Raises:
        Flawed: It is neither, or cut short.
    """
    head = read_at(file, 0, len(PNG_SIGNATURE))
    if head == PNG_SIGNATURE:
        return read_png(file, size)
    if head.startswith(JPEG_SIGNATURE):
        return read_jpeg(file, size)
    raise Flawed("is neither a PNG nor a JPEG picture")
