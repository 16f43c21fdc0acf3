"""How a video differs from what was asked for. A difference is worth a warning: the video is paid for and kept."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.core.model import Json
from runner.media import MediaFacts

_DURATION_SLACK_S = 0.5
"""Models render whole frames, and one more than the seconds ask for: 5 s at 24 a second come as 5.04 s."""
_RATIO_SLACK = 0.06
"""Sides are multiples of 16 or 32, so 21:9 may come as 992x416, which is 2 % off."""
_AREA_SLACK = 0.25
_CLASS = re.compile(r"(\d{3,4})p", re.IGNORECASE)
_PIXELS = re.compile(r"(\d{2,5})\s*[x*×]\s*(\d{2,5})", re.IGNORECASE)
_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")


def mismatches(request: Mapping[str, Json], facts: MediaFacts) -> tuple[str, ...]:
    """
    Say how a video differs from its request, a sentence each; nothing where either does not say.

    >>> mismatches({"seconds": "5", "size": "720P"}, MediaFacts("video/mp4", 832, 480, 10.0))
    ('the video is 10 s long, and 5 s were asked for', 'the video is 832x480 pixels, and 720P was asked for')
    """
    found = (_in_duration(request, facts), _in_size(request, facts), _in_ratio(request, facts))
    return tuple(sentence for sentence in found if sentence is not None)


def _in_duration(request: Mapping[str, Json], facts: MediaFacts) -> str | None:
    try:
        asked_s = float(request["seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    # Seedance takes -1 for "as long as you see fit".
    if facts.duration_s is None or asked_s <= 0 or abs(facts.duration_s - asked_s) <= _DURATION_SLACK_S:
        return None
    return f"the video is {facts.duration_s:g} s long, and {asked_s:g} s were asked for"


def _in_size(request: Mapping[str, Json], facts: MediaFacts) -> str | None:
    asked = str(request.get("size", "")).strip()
    if facts.width is None or facts.height is None:
        return None
    if match := _CLASS.fullmatch(asked):
        # 720p names an area, about that of 1280x720: a square one has 960x960 pixels.
        area = int(match[1]) ** 2 * 16 / 9
        is_near = abs(facts.width * facts.height / area - 1) <= _AREA_SLACK
    elif match := _PIXELS.fullmatch(asked):
        is_near = (facts.width, facts.height) == (int(match[1]), int(match[2]))
    else:
        return None
    return None if is_near else f"the video is {facts.width}x{facts.height} pixels, and {asked} was asked for"


def _in_ratio(request: Mapping[str, Json], facts: MediaFacts) -> str | None:
    match = _RATIO.fullmatch(str(request.get("ratio", "")).strip())
    if match is None or not facts.width or not facts.height or not int(match[1]) or not int(match[2]):
        return None
    off = (facts.width / facts.height) / (int(match[1]) / int(match[2]))
    if 1 - _RATIO_SLACK <= off <= 1 + _RATIO_SLACK:
        return None
    return f"the video is {facts.width}x{facts.height} pixels, and the ratio {match[0]} was asked for"
