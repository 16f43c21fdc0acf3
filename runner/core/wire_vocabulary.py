"""
Where answers have what: one table for every gateway of this family, by shape and not by gateway.

Each line names the facts in `schemas/README.md` that it is from. `wire` and `wire_errors` read by this table.

What is nearly JSON is parsed too: an id in it is still the id of a task that was paid for. Answers were seen with a byte
order mark, raw control characters, a NaN, half of a surrogate pair, another encoding, a second JSON value behind the
first, or other bytes behind it. What a task consumed is kept, so that a bill can be checked against it (facts F75, F91).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from runner.core.model import Asset, AssetKind, Json
from runner.core.outcomes import RemoteStatus
from runner.jsontext import loads

Path = tuple[str, ...]

LAYER_KEYS = ("data", "output", "task", "result")
"""Objects that may hold the task, or its upstream's own answer (facts F32, F61, F72); of a list, the first element."""

ID_KEYS = ("id", "task_id", "taskId", "video_id", "job_id")
"""The task's id, in the order to poll (facts F30, F32)."""
REQUEST_ID_KEY = "request_id"
"""The id of the HTTP request, and of the task where an accepted answer has no other (fact F32)."""

STATUS_KEYS = ("task_status", "status", "state")
"""The status word (facts F60, F61)."""

STATUS_WORDS: Mapping[str, RemoteStatus] = {
    **dict.fromkeys(
        ("pending", "queued", "submitted", "not_start", "created", "unknown"), RemoteStatus.QUEUED
    ),
    **dict.fromkeys(("running", "in_progress", "processing", "in progress"), RemoteStatus.RUNNING),
    **dict.fromkeys(
        ("succeeded", "completed", "success", "succeed", "done", "complete", "finished", "ok"),
        RemoteStatus.SUCCEEDED,
    ),
    **dict.fromkeys(
        ("failed", "failure", "error", "fail", "rejected", "abort", "aborted", "-1"), RemoteStatus.FAILED
    ),
    **dict.fromkeys(("cancelled", "canceled"), RemoteStatus.CANCELLED),
    **dict.fromkeys(("expired", "timeout"), RemoteStatus.EXPIRED),
}
"""Every word that is known, in lower case (facts F60, F61)."""

VIDEO_PATHS: tuple[Path, ...] = (
    ("metadata", "url"),
    ("video_url",),
    ("content", "video_url"),
    ("url",),
    ("result_url",),
    ("metadata", "video_url"),
    ("output", "video_url"),
    ("output", "results"),
    ("content", "url"),
    ("video", "url"),
    ("video",),
    ("videos",),
    ("results",),
    ("output",),
    ("resultJson", "resultUrls"),
)
"""Addresses of the video, in the order to try: text, or a list of texts or of objects with a `url` (facts F76, F83)."""

LAST_FRAME_PATHS: tuple[Path, ...] = (
    ("last_frame_url",),
    ("content", "last_frame_url"),
    ("metadata", "last_frame_url"),
    ("metadata", "content", "last_frame_url"),
)
"""Addresses of the last frame (fact F76)."""

USAGE_PATHS: tuple[Path, ...] = (("usage",), ("metadata", "usage"))
"""What the task consumed (fact F75)."""

FAILURE_PATHS: tuple[Path, ...] = (
    ("error",),
    ("metadata", "error"),
    ("fail_reason",),
    ("error_message",),
    ("errorMessage",),
    ("failMsg",),
    ("error_description",),
    ("data", "error"),
    ("data", "fail_reason"),
)
"""Where only errors have anything (facts F53, F54)."""

REASON_PATHS: tuple[Path, ...] = (
    ("output",),
    ("detail",),
    ("reason",),
    ("message_zh",),
    ("data", "message"),
    ("data", "msg"),
)
"""Where errors have a reason, and other answers may have something else (facts F53, F54)."""

TEXT_KEYS = ("message", "msg", "status_msg", "detail")
CODE_KEYS = ("code", "status_code")
"""The parts of an error that is an object (facts F42, F54)."""


def at(node: Json, path: Path) -> Json:
    """Return the value at a path; None if there is none."""
    for key in path:
        if type(node) is not dict:
            return None
        node = node.get(key)
        if node is None:
            return None
    return node


def inner(node: dict[str, Json], key: str) -> dict[str, Json] | None:
    """Return the object under a key, or the first one of a list; None if there is none."""
    value = node.get(key)
    if type(value) is list and value:
        value = value[0]
    return value if type(value) is dict else None


def layers_in(node: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """Yield the objects inside a task that may have its fields too, two levels deep, the outer ones first."""
    level = [node]
    for _ in range(2):
        level = [
            found
            for outer in level
            for key in LAYER_KEYS
            if key in outer and (found := inner(outer, key)) is not None
        ]
        yield from level


_DECODER = json.JSONDecoder(strict=False)
_MAX_VALUES = 8
"""JSON values that are read one behind the other."""


def read_json(body: bytes) -> Json:
    r"""
    Parse a body as JSON; None if it is not JSON, or is ``null``.

    Of several values one behind the other the first that has an id is returned, else the first. Too deeply nested
    JSON counts as no JSON.

    >>> read_json(b'{"id": "task_1"}\n{"code": "x"}')
    {'id': 'task_1'}
    """
    try:
        return loads(body)
    except (ValueError, RecursionError):
        values = list(_read_values(decode(body)))
    return next(filter(_has_id, values), values[0] if values else None)


def decode(body: bytes) -> str:
    """
    Decode a body: as what its first bytes say, else as UTF-8, else as GB 18030, else with replacement characters.

    >>> decode("提示词".encode("gb18030"))
    '提示词'
    """
    encoding = json.detect_encoding(body) if body[:4] else "utf-8"
    for name in dict.fromkeys((encoding, "utf-8", "gb18030")):
        try:
            return body.decode(name).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return body.decode("utf-8", "replace")


def _read_values(text: str) -> Iterator[Json]:
    start = 0
    for _ in range(_MAX_VALUES):
        start += len(text[start:]) - len(text[start:].lstrip())
        try:
            value, start = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        yield value


def _has_id(value: Json) -> bool:
    if not isinstance(value, dict):
        return False
    return any(node.get(key) for node in (value, *layers_in(value)) for key in ID_KEYS)


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
