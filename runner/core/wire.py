"""
Read a task from any answer that the API is known to give, and survive all others.

One host has four documented shapes for one route, a wrapped form of them, and several vocabularies of
status (facts F53, F60, F69, F72, F76). Two promises hold for every JSON value: no exception, and no
success unless the status says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from runner.core.model import Failure, FailureClass, Json
from runner.core.outcomes import FAILURE_CLASSES, RemoteStatus, RemoteTask
from runner.core.sanitize import redact, sanitize_line
from runner.core.wire_errors import MESSAGE_CHARS, SUCCESS_CODES, ApiErrorInfo, find_error, is_moderation

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
# Matches nearly all URLs, which then need no parsing.
_FAST_URL = re.compile(r"https?://[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?/[!-\[\]-~]*")
_STATUS_CHARS = 60
_URL_CHARS = 8192

_STATUSES: Mapping[str, RemoteStatus] = {
    **dict.fromkeys(
        ("pending", "queued", "submitted", "not_start", "created", "unknown"), RemoteStatus.QUEUED
    ),
    **dict.fromkeys(("running", "in_progress", "processing", "in progress"), RemoteStatus.RUNNING),
    **dict.fromkeys(("succeeded", "completed", "success", "succeed"), RemoteStatus.SUCCEEDED),
    **dict.fromkeys(("failed", "failure", "error"), RemoteStatus.FAILED),
    **dict.fromkeys(("cancelled", "canceled"), RemoteStatus.CANCELLED),
    **dict.fromkeys(("expired", "timeout"), RemoteStatus.EXPIRED),
}
"""Every documented status (fact F60)."""

# Paths to URLs, in the order to try (fact F76).
_VIDEO_PATHS = (
    ("metadata", "url"),
    ("video_url",),
    ("content", "video_url"),
    ("url",),
    ("result_url",),
    ("metadata", "video_url"),
    ("output", "video_url"),
)
_LAST_FRAME_PATHS = (
    ("last_frame_url",),
    ("content", "last_frame_url"),
    ("metadata", "last_frame_url"),
    ("metadata", "content", "last_frame_url"),
)


def read_task(body: Json, *, http_status: int | None = None, secrets: Iterable[str] = ()) -> RemoteTask:
    """
    Read the task that an answer shows, in one vocabulary.

    Anything else is returned as a queued task without ids. What an answer without ids means is for the
    caller to decide.

    Args:
        body: The answer, as JSON.
        http_status: Of the answer, for the failure of a failed task.
        secrets: Keys to hide in messages, besides whatever looks like one.

    >>> task = read_task({"id": "task_1", "status": "completed", "metadata": {"url": "https://cdn.example/a.mp4"}})
    >>> task.status.value, task.video_urls
    ('succeeded', ('https://cdn.example/a.mp4',))
    >>> task = read_task({"task_id": "cgt-1"})
    >>> task.ids, task.status.value
    (('cgt-1',), 'queued')
    """
    if not isinstance(body, dict):
        return RemoteTask(ids=(), status=RemoteStatus.QUEUED)
    task = _unwrap(body)
    status, raw_status, is_known = _read_status(task.get("status"))
    succeeded = status is RemoteStatus.SUCCEEDED
    return RemoteTask(
        ids=_read_ids(task, body),
        status=status,
        raw_status=raw_status,
        is_known_status=is_known,
        progress=_read_progress(task.get("progress")),
        video_urls=_urls(_video_candidates(task)) if succeeded else (),
        last_frame_urls=_urls(_last_frame_candidates(task)) if succeeded else (),
        error=_read_failure(task, body, status, http_status, secrets) if status in FAILURE_CLASSES else None,
        completed_at=_read_time(task.get("completed_at")),
    )


def _unwrap(body: dict[str, Json]) -> dict[str, Json]:
    """
    Return the task inside ``{"code": "success", "data": {…}}``, or the body itself.

    Without a code it is an envelope only if it has no id of its own: a flat task may have its upstream's
    body as ``data``, whose id means nothing to this gateway.
    """
    data = body.get("data")
    if not isinstance(data, dict) or not (isinstance(data.get("status"), str) or _ids_in(data)):
        return body
    code = body.get("code")
    if code is None or code == "":
        return body if _ids_in(body) else data
    return data if _is_success_code(code) else body


def _is_success_code(code: Json) -> bool:
    if isinstance(code, str):
        return code.strip().lower() in SUCCESS_CODES
    return isinstance(code, int) and not isinstance(code, bool) and code in (0, 200)


def is_task_id(text: str) -> bool:
    """
    Return whether a text may be a task's id: one segment of a path, as the API writes them.

    >>> is_task_id("task_01J8"), is_task_id("a/../b"), is_task_id("")
    (True, False, False)
    """
    return _ID.fullmatch(text) is not None


def task_id_error(text: str) -> str | None:
    """
    Return why a text from a user is not a task id; None if it may be one. What looks like a key is not repeated.

    >>> task_id_error("task_01J8"), task_id_error("cgt-20260101-x1"), task_id_error("sk-0123")
    (None, None, 'this looks like an API key, not a task id')
    >>> task_id_error("https://example.com/v")
    "'https://example.com/v' is not a task id (letters, digits, '-' and '_', at most 200)"
    """
    shown = redact(text)
    if not is_task_id(text):
        return f"{shown[:60]!r} is not a task id (letters, digits, '-' and '_', at most 200)"
    return None if shown == text else "this looks like an API key, not a task id"


def _read_ids(task: dict[str, Json], body: dict[str, Json]) -> tuple[str, ...]:
    """Return the task's ids, or if it has none those of the other layer: a lost id is a lost video."""
    return _ids_in(task) or _ids_in(body) or _ids_in(body.get("data"))


def _ids_in(node: Json) -> tuple[str, ...]:
    """
    Return ``id`` and ``task_id``, each once, in the order to poll them.

    An integer counts as its digits: no document shows one, but a paid task whose id is refused is lost. An
    id that is not one segment of a path is refused.
    """
    if not isinstance(node, dict):
        return ()
    ids: list[str] = []
    for value in (node.get("id"), node.get("task_id")):
        if value is None:
            continue
        if type(value) is int and 0 < value < 10**18:
            value = str(value)
        if isinstance(value, str) and is_task_id(value := value.strip()) and value not in ids:
            ids.append(value)
    return tuple(ids)


def _read_status(value: Json) -> tuple[RemoteStatus, str | None, bool]:
    if not isinstance(value, str) or not value.strip():
        return RemoteStatus.QUEUED, None, True
    raw = value.strip()
    known = _STATUSES.get(raw.lower())
    if known is not None:
        # Nothing in it needs to be sanitized, and nearly every answer has such a status.
        return known, raw, True
    return RemoteStatus.RUNNING, sanitize_line(raw, max_chars=_STATUS_CHARS), False


def _read_progress(value: Json) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    if not _is_number(value):
        return None
    # Clamped before the conversion: an integer may be too large for a float.
    return float(min(max(value, 0), 100))


def _read_time(value: Json) -> float | None:
    # A larger number is milliseconds or nonsense, and a wrong time is worse than none.
    return float(value) if value is not None and _is_number(value) and 0 < value < 1e11 else None


def _is_number(value: Json) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _layers(task: dict[str, Json]) -> Iterator[Json]:
    """Yield the task, then its ``data`` (its upstream's own body), two levels deep."""
    node: Json = task
    for _ in range(3):
        if not isinstance(node, dict):
            return
        yield node
        node = node.get("data")


def _video_candidates(task: dict[str, Json]) -> Iterator[Json]:
    for node in _layers(task):
        for path in _VIDEO_PATHS:
            yield _at(node, path)
        results = _at(node, ("output", "results"))
        for result in results if isinstance(results, list) else ():
            yield _at(result, ("url",))


def _last_frame_candidates(task: dict[str, Json]) -> Iterator[Json]:
    for node in _layers(task):
        for path in _LAST_FRAME_PATHS:
            yield _at(node, path)


def _at(node: Json, path: tuple[str, ...]) -> Json:
    for key in path:
        if type(node) is not dict:
            return None
        node = node.get(key)
        if node is None:
            return None
    return node


def _urls(candidates: Iterable[Json]) -> tuple[str, ...]:
    """Return the absolute http(s) URLs, each once."""
    stripped = dict.fromkeys(value.strip() for value in candidates if isinstance(value, str))
    return tuple(text for text in stripped if is_http_url(text))


def is_http_url(text: str) -> bool:
    """
    Return whether a text is an absolute http(s) URL with a host, valid in a request.

    >>> is_http_url("https://cdn.example/a.mp4?X-Signature=1"), is_http_url("task failed: https://x")
    (True, False)
    """
    if len(text) <= _URL_CHARS and _FAST_URL.fullmatch(text):
        return True
    if len(text) > _URL_CHARS or not text.isprintable() or " " in text or "\\" in text:
        return False
    try:
        parts = urlsplit(text)
        # Reading the port validates it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _read_failure(
    task: dict[str, Json],
    body: dict[str, Json],
    status: RemoteStatus,
    http_status: int | None,
    secrets: Iterable[str],
) -> Failure:
    secrets = tuple(secrets)
    error = (
        find_error(task, secrets=secrets)
        or find_error(body, secrets=secrets)
        or _error_in_url(task, secrets)
        or ApiErrorInfo(f"the API says {status.value} and gives no reason")
    )
    cls = FAILURE_CLASSES[status]
    if cls is FailureClass.REMOTE_FAILED and is_moderation(error.search_text):
        cls = FailureClass.MODERATION
    return Failure(cls, error.message, error.code, http_status, error.request_id)


def _error_in_url(task: dict[str, Json], secrets: tuple[str, ...]) -> ApiErrorInfo | None:
    """Read ``metadata.url``, where the gateway writes the reason if it has no URL (fact F71)."""
    text = _at(task, ("metadata", "url"))
    if not isinstance(text, str) or is_http_url(text.strip()):
        return None
    message = sanitize_line(text, max_chars=MESSAGE_CHARS, secrets=secrets)
    return ApiErrorInfo(message, search_text=message.lower()) if message else None
