"""
Read what a media file is, and whether it is complete.

Files are read piece by piece and never held in memory.
"""

from __future__ import annotations

from runner.media.headers import InvalidMedia, MediaInfo, read_audio, read_image
from runner.media.mp4 import read_mp4

__all__ = ["InvalidMedia", "MediaInfo", "read_audio", "read_image", "read_mp4"]
