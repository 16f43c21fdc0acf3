"""What a task consumed, so that a bill can be checked against it (facts F75, F91)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from runner.core.model import Asset, AssetKind, Json
from runner.core.wire_vocabulary import USAGE_PATHS, at

_MAX_ENTRIES = 40
_MAX_CHARS = 200
_SECONDS = (
    ("usage", "seconds"),
    ("usage", "duration"),
    ("duration",),
    ("metadata", "video_duration"),
    ("metadata", "duration"),
)
_INPUT_SECONDS = (
    ("usage", "input_seconds"),
    ("usage", "input_video_duration"),
    ("metadata", "input_video_duration"),
)
_RESOLUTIONS = (
    ("usage", "resolution"),
    ("resolution",),
    ("metadata", "resolution"),
    ("metadata", "SR"),
    ("usage", "SR"),
)
_FIRST_KEYS = frozenset(path[0] for path in (*USAGE_PATHS, *_SECONDS, *_INPUT_SECONDS, *_RESOLUTIONS))


def read_usage(layers: Sequence[Json]) -> dict[str, Json] | None:
    """
    Return what an answer says that its task consumed, with ``seconds``, ``input_seconds`` and ``resolution``.

    >>> read_usage([{"duration": 5, "resolution": "720p", "usage": {"total_tokens": 9}}])
    {'total_tokens': 9, 'seconds': 5, 'resolution': '720p'}
    >>> read_usage([{"metadata": {"video_duration": 5.0, "input_video_duration": 0.0, "SR": 720}}])
    {'seconds': 5.0, 'input_seconds': 0.0, 'resolution': '720p'}
    >>> read_usage([{"status": "completed"}])
    """
    layers = [node for node in layers if isinstance(node, dict) and not _FIRST_KEYS.isdisjoint(node)]
    if not layers:
        # As in most answers to polls.
        return None
    found = next(
        (value for node in layers for path in USAGE_PATHS if isinstance(value := at(node, path), dict)), {}
    )
    usage = {
        key: value for key, item in list(found.items())[:_MAX_ENTRIES] if (value := _short(item)) is not None
    }
    for key in ("seconds", "input_seconds", "resolution"):
        usage.pop(key, None)
    for key, paths in (("seconds", _SECONDS), ("input_seconds", _INPUT_SECONDS)):
        values = (_number(at(node, path)) for node in layers for path in paths)
        if (
            seconds := next((value for value in values if value is not None and value >= 0), None)
        ) is not None:
            usage[key] = seconds
    sizes = (_resolution(at(node, path)) for node in layers for path in _RESOLUTIONS)
    if (resolution := next((size for size in sizes if size is not None), None)) is not None:
        usage["resolution"] = resolution
    return usage or None


def completed_usage(usage: Mapping[str, Json] | None, assets: Sequence[Asset]) -> dict[str, Json] | None:
    """Return a usage with the seconds and the resolution of the video where the answer did not say them."""
    completed = dict(usage or {})
    video = next((asset for asset in assets if asset.kind is AssetKind.VIDEO), None)
    if video is not None and video.duration_s is not None:
        completed.setdefault("seconds", video.duration_s)
    if video is not None and video.width and video.height:
        completed.setdefault("resolution", f"{min(video.width, video.height)}p")
    return completed or None


def _short(value: Json) -> Json:
    """Return a value that is fit for a result line; None for anything else."""
    if isinstance(value, str):
        return value[:_MAX_CHARS]
    if isinstance(value, dict):
        numbers = ((str(key)[:_MAX_CHARS], _number(item)) for key, item in list(value.items())[:_MAX_ENTRIES])
        return {key: number for key, number in numbers if number is not None} or None
    return value if isinstance(value, bool) else _number(value)


def _number(value: Json) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) and abs(value) < 2**53 else None


def _resolution(value: Json) -> str | None:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,5}([pPkK]|x[0-9]{1,5})", value):
        return value
    number = _number(value)
    return None if number is None or number < 1 else f"{number:.0f}p"
