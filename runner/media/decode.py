"""Open a video with PyAV (the extra ``media``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer

_DEMUXERS = {".mp4": "mp4", ".mov": "mov", ".webm": "webm"}


def open_video(path: str) -> InputContainer:
    """
    Open a video file, as what the end of its name says and nothing else.

    A file that calls itself a video may be a playlist, which would name other files and hosts to read.

    Raises:
        ValueError: It is no video by its name, or has no pictures.
        av.FFmpegError, OSError: It can't be read.
    """
    import av

    demuxer = _DEMUXERS.get(os.path.splitext(path)[1].lower())
    if demuxer is None:
        raise ValueError("is no video")
    container = av.open(path, format=demuxer)
    if not container.streams.video:
        container.close()
        raise ValueError("has no pictures")
    # One core for each process: the number of processes is what is limited.
    container.streams.video[0].codec_context.thread_count = 1
    return container
