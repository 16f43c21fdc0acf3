"""How a video differs from its request. A difference is worth a warning: the video is paid for and kept."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.core.model import Json
from runner.core.units import format_duration
from runner.media import MediaInfo

_DURATION_TOLERANCE_S = 0.5
"""Models render whole frames, and one more than the seconds need: 5 s at 24 per second are 5.04 s."""
_RATIO_TOLERANCE = 0.06
"""Sides are multiples of 16 or 32, so 21:9 may be 992x416, which is 2 % off."""
_AREA_TOLERANCE = 0.25
_RESOLUTION = re.compile(r"(\d{3,4})p", re.IGNORECASE)
_PIXELS = re.compile(r"(\d{2,5})\s*[x*×]\s*(\d{2,5})", re.IGNORECASE)
_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")


def mismatches(request: Mapping[str, Json], info: MediaInfo) -> tuple[str, ...]:
    """
    Return a sentence for each way in which a video differs from its request; none where either states nothing.

    >>> mismatches({"seconds": "5", "size": "720P"}, MediaInfo("video/mp4", 832, 480, 10.0))
    ('the video is 10s long; 5s was requested', 'the video is 832x480 pixels; 720P was requested')
    """
    return tuple(filter(None, (duration_mismatch(request, info), *size_mismatches(request, info))))


def size_mismatches(request: Mapping[str, Json], info: MediaInfo) -> tuple[str, ...]:
    """Return a sentence for each way in which the size or the shape of a video differs from its request."""
    return tuple(filter(None, (_size_mismatch(request, info), _ratio_mismatch(request, info))))


def duration_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    """Return a sentence if the length of a video differs from its request; None if not."""
    try:
        requested_s = float(request["seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    # Seedance takes -1 for a length of its own choice.
    if info.duration_s is None or requested_s <= 0:
        return None
    if abs(info.duration_s - requested_s) <= _DURATION_TOLERANCE_S:
        return None
    return (
        f"the video is {format_duration(info.duration_s)} long; {format_duration(requested_s)} was requested"
    )


def _size_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    if "size" not in request or info.width is None or info.height is None:
        return None
    requested = str(request["size"]).strip()
    if match := _RESOLUTION.fullmatch(requested):
        # 720p means an area of about 1280x720: a square video has 960x960 pixels.
        area = int(match[1]) ** 2 * 16 / 9
        matches = abs(info.width * info.height / area - 1) <= _AREA_TOLERANCE
    elif match := _PIXELS.fullmatch(requested):
        matches = (info.width, info.height) == (int(match[1]), int(match[2]))
    else:
        return None
    return None if matches else f"the video is {info.width}x{info.height} pixels; {requested} was requested"


def _ratio_mismatch(request: Mapping[str, Json], info: MediaInfo) -> str | None:
    if "ratio" not in request:
        return None
    match = _RATIO.fullmatch(str(request["ratio"]).strip())
    if match is None or not info.width or not info.height or not int(match[1]) or not int(match[2]):
        return None
    deviation = (info.width / info.height) / (int(match[1]) / int(match[2])) - 1
    if abs(deviation) <= _RATIO_TOLERANCE:
        return None
    return f"the video is {info.width}x{info.height} pixels; the ratio {match[0]} was requested"
