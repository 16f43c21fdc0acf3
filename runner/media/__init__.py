"""
What a downloaded file says of itself: whether it is whole, and what is in it.

Files are looked at piece by piece and never held in memory.
"""

from __future__ import annotations

from runner.media.facts import InvalidMedia, MediaFacts, Readable
from runner.media.images import read_jpeg, read_picture, read_png
from runner.media.mp4 import read_mp4

__all__ = ["InvalidMedia", "MediaFacts", "Readable", "read_jpeg", "read_mp4", "read_picture", "read_png"]
