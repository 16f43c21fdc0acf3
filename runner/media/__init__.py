"""
Read what a media file is, and whether it is complete.

Files are read piece by piece and never held in memory.
"""

from __future__ import annotations

from runner.media.audio import read_audio
from runner.media.images import read_image
from runner.media.info import InvalidMedia, MediaInfo
from runner.media.mp4 import read_mp4

__all__ = ["InvalidMedia", "MediaInfo", "read_audio", "read_image", "read_mp4"]
