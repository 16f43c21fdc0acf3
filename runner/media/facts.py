"""What a media file says of itself, as a value."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class MediaFacts(Struct, frozen=True):
    """
    What was read from a whole file. A fact that the file does not state is None.

    Attributes:
        media_type: Such as ``video/mp4``.
        width: In pixels, as it is meant to be shown (a video that is stored on its side counts upright).
        duration_s: Of a video; None for a picture.
    """

    media_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


class InvalidMedia(ValueError):
    """A file is cut short or is not what it should be; the message says how, as the end of a sentence."""


class Readable(Protocol):
    """An open binary file, or bytes in memory: all that is needed to look at a file piece by piece."""

    def seek(self, offset: int, /) -> object:
        """Go to a place, in bytes from the beginning."""

    def read(self, size: int, /) -> bytes:
        """Read so many bytes; fewer at the end."""


def read_at(file: Readable, offset: int, size: int) -> bytes:
    """Read from a place; fewer bytes than asked for where the file ends earlier."""
    file.seek(offset)
    return file.read(size)
