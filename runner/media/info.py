"""What is known of a media file, as a value."""

from __future__ import annotations

from typing import BinaryIO

from msgspec import Struct


class MediaInfo(Struct, frozen=True):
    """
    What was read from a complete file. What the file does not state is None.

    Attributes:
        media_type: Such as ``video/mp4``.
        width: In pixels, as displayed: a rotated video counts upright.
        duration_s: Of a video or audio; None for an image.
        codec: Of a video, such as ``h264``.
        fps: Frames per second of a video, on average.
        has_sound: Whether a video has sound, which may be silence.
    """

    media_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    codec: str | None = None
    fps: float | None = None
    has_sound: bool | None = None


class InvalidMedia(ValueError):
    """A file is truncated or is not what it should be; the message tells how, as the end of a sentence."""


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read at an offset; fewer bytes than requested at the end of the file."""
    file.seek(offset)
    return file.read(size)
