"""
Where answers have what: one table for every gateway of this family, by shape and not by gateway.

Each line names the facts in `schemas/README.md` that it is from. `wire` and `wire_errors` read by this table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.core.model import Json
from runner.core.outcomes import RemoteStatus

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
