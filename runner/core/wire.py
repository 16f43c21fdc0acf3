"""
Read a task from any answer that the API is known to give, and survive all others.

One host has four documented shapes for one route, a wrapped form of them, and several vocabularies of
status; other gateways have more (facts F53, F60, F61, F69, F72, F76, F83). `wire_vocabulary` has them all in one table.
Two promises hold for every JSON value: no exception, and no success unless a status says so, or an unknown
status is beside the video's address.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import urljoin, urlsplit

from runner.core.model import Failure, FailureClass, Json
from runner.core.outcomes import FAILURE_CLASSES, RemoteStatus, RemoteTask
from runner.core.sanitize import redact, sanitize_line
from runner.core.wire_errors import (
    MESSAGE_CHARS,
    SUCCESS_CODES,
    ApiErrorInfo,
    find_error,
    find_failure,
    is_moderation,
    is_output_moderation,
)
from runner.core.wire_vocabulary import (
    ID_KEYS,
    LAST_FRAME_PATHS,
    LAYER_KEYS,
    REQUEST_ID_KEY,
    STATUS_KEYS,
    STATUS_WORDS,
    VIDEO_PATHS,
    at,
    inner,
    layers_in,
    read_json,
    read_usage,
)

_MAX_ID_BYTES = 1024
_MAX_INTEGER = 10**_MAX_ID_BYTES
# Matches nearly all URLs, which then need no parsing.
_FAST_URL = re.compile(r"https?://[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?/[!-\[\]-~]*")
_STATUS_CHARS = 60
_URL_CHARS = 8192

_MAX_URLS = 16
"""Addresses of one asset in one answer that are tried."""


def read_task(
    body: Json,
    *,
    http_status: int | None = None,
    secrets: Iterable[str] = (),
    base_url: str | None = None,
) -> RemoteTask:
    """
    Read the task that an answer shows, in one vocabulary.

    Anything else is returned as a queued task without ids. What an answer without ids means is for the
    caller to decide.

    Args:
        body: The answer, as JSON.
        http_status: Of the answer, for the failure of a failed task.
        secrets: Keys to hide in messages, besides whatever looks like one.
        base_url: What relative addresses of assets are relative to; without it they are left out.

    >>> task = read_task({"id": "task_1", "status": "completed", "metadata": {"url": "https://cdn.example/a.mp4"}})
    >>> task.status.value, task.video_urls
    ('succeeded', ('https://cdn.example/a.mp4',))
    >>> task = read_task({"output": {"task_id": "cgt-1"}})
    >>> task.ids, task.status.value
    (('cgt-1',), 'queued')
    """
    if not isinstance(body, dict):
        return RemoteTask(ids=(), status=RemoteStatus.QUEUED)
    body_ids = _ids_in(body)
    task = _unwrap(body, body_ids)
    # Nearly every answer is one flat object, and polls are what a large run does most.
    layers = (task,) if task.keys().isdisjoint(LAYER_KEYS) else (task, *layers_in(task))
    if task is body and len(layers) == 1:
        ids = all_ids = body_ids
    else:
        ids, all_ids = _ids_of_layers(body_ids, layers)
    status, raw_status, is_known = _read_status(layers)
    if not is_known:
        status = _guess_status(task, layers, base_url)
    succeeded = status is RemoteStatus.SUCCEEDED
    return RemoteTask(
        ids=ids,
        all_ids=all_ids,
        status=status,
        raw_status=raw_status,
        is_known_status=is_known,
        progress=_read_progress(task.get("progress")),
        video_urls=_urls(layers, VIDEO_PATHS, base_url) if succeeded else (),
        last_frame_urls=_urls(layers, LAST_FRAME_PATHS, base_url) if succeeded else (),
        error=_read_failure(task, body, status, http_status, secrets) if status in FAILURE_CLASSES else None,
        completed_at=_read_time(task.get("completed_at")),
        usage=read_usage(layers),
    )


def _unwrap(body: dict[str, Json], body_ids: tuple[str, ...]) -> dict[str, Json]:
    """
    Return the task inside an envelope such as ``{"code": "success", "data": {…}}``, or the body itself.

    Without a code it is an envelope only if it has no id of its own: a flat task may have its upstream's
    body as ``data``, whose id means nothing to this gateway.
    """
    code = body.get("code")
    if code is None or code == "":
        if body_ids:
            return body
    elif not is_success_code(code):
        return body
    for key in LAYER_KEYS:
        task = inner(body, key)
        if task is not None and (_ids_in(task) or _read_status((task,))[1] is not None):
            return task
    return body


def is_success_code(code: Json) -> bool:
    """
    Return whether the ``code`` of an envelope says that there is no error.

    >>> is_success_code("success"), is_success_code(0), is_success_code(402)
    (True, True, False)
    """
    if isinstance(code, str):
        return code.strip().lower() in SUCCESS_CODES
    return isinstance(code, int) and not isinstance(code, bool) and code in (0, 200)


def is_task_id(text: str) -> bool:
    """
    Return whether a text may be a task's id: 1 to 1,024 bytes without control characters and blanks at its ends (fact F31).

    >>> is_task_id("task_01J8"), is_task_id("a/b=+"), is_task_id(""), is_task_id(" a")
    (True, True, False, False)
    """
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= _MAX_ID_BYTES and text[0] != " " != text[-1]
    if text != text.strip() or any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        return False
    return 0 < len(text.encode()) <= _MAX_ID_BYTES


def task_id_error(text: str) -> str | None:
    """
    Return why a text from a user is not a task id; None if it may be one. What looks like a key is not repeated.

    >>> task_id_error("task_01J8"), task_id_error("video_bGl0+ZWxs/bTpj="), task_id_error("sk-0123")
    (None, None, 'this looks like an API key, not a task id')
    >>> task_id_error("task_1 ")
    "'task_1 ' is not a task id (1 to 1,024 bytes, no control characters, no blanks at its ends)"
    """
    shown = redact(text)
    if not is_task_id(text):
        return f"{shown[:60]!r} is not a task id (1 to 1,024 bytes, no control characters, no blanks at its ends)"
    return None if shown == text else "this looks like an API key, not a task id"


def _ids_of_layers(
    body_ids: tuple[str, ...], layers: Iterable[dict[str, Json]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the task's ids, or if it has none those of another layer: a lost id is a lost video; and all of them."""
    task_ids, *inner_ids = map(_ids_in, layers)
    found = (body_ids, task_ids, *inner_ids)
    ids = task_ids or next(filter(None, found), ())
    return ids, tuple(dict.fromkeys(chain.from_iterable(found)))


def _ids_in(node: dict[str, Json]) -> tuple[str, ...]:
    """
    Return the ids of one object, each once, in the order to poll them.

    An integer counts as its digits: no document shows one, but a paid task whose id is refused is lost.
    """
    ids: list[str] = []
    for key in ID_KEYS:
        if key not in node:
            continue
        value = node[key]
        if type(value) is int and 0 < value < _MAX_INTEGER:
            value = str(value)
        if isinstance(value, str) and is_task_id(value := value.strip()) and value not in ids:
            ids.append(value)
    return tuple(ids)


def has_id(value: Json, *, depth: int = 6) -> bool:
    """
    Return whether anything in an answer may be a task's id, even where no id is read.

    >>> has_id({"code": 402, "data": {"job": {"id": {"value": "a"}}}}), has_id({"code": 402, "request_id": "a"})
    (True, False)
    """
    if depth == 0:
        return bool(value)
    if isinstance(value, list):
        return any(has_id(item, depth=depth - 1) for item in value)
    if not isinstance(value, dict):
        return False
    return any(
        (key in ID_KEYS and item not in (None, "")) or has_id(item, depth=depth - 1)
        for key, item in value.items()
    )


def request_id_of(body: Json) -> tuple[str, ...]:
    """
    Return the id of the request that an accepted answer may have as its only id (fact F32); empty if it has none.

    >>> request_id_of({"request_id": "b53c8bb4"}), request_id_of({"request_id": "1", "code": "InvalidParameter"})
    (('b53c8bb4',), ())
    """
    if not isinstance(body, dict) or find_failure(body) is not None:
        return ()
    code = body.get("code")
    if code not in (None, "") and not is_success_code(code):
        return ()
    value = body.get(REQUEST_ID_KEY)
    return (value,) if isinstance(value, str) and is_task_id(value) else ()


def _read_status(layers: Iterable[dict[str, Json]]) -> tuple[RemoteStatus, str | None, bool]:
    """Return the first status of some layers, as it is written, and whether it is known."""
    for node in layers:
        for key in STATUS_KEYS:
            if key not in node:
                continue
            value = node[key]
            if isinstance(value, str) and (raw := value.strip()):
                known = STATUS_WORDS.get(raw.lower())
                if known is None:
                    return RemoteStatus.RUNNING, sanitize_line(raw, max_chars=_STATUS_CHARS), False
                # Nothing in it needs to be sanitized, and nearly every answer has such a status.
                return known, raw, True
            if type(value) is int:
                # Any other number under "status" is the HTTP status of the call.
                if value == -1:
                    return RemoteStatus.FAILED, "-1", True
                if key == "state" and 200 <= value < 300:
                    return RemoteStatus.SUCCEEDED, str(value), True
    return RemoteStatus.QUEUED, None, True


def _guess_status(
    task: dict[str, Json], layers: tuple[dict[str, Json], ...], base_url: str | None
) -> RemoteStatus:
    """Return what a word that nobody knows means: failed beside an error, succeeded beside an address (fact F61)."""
    failure = find_failure(task)
    if failure is not None and failure.has_text:
        return RemoteStatus.FAILED
    return RemoteStatus.SUCCEEDED if _urls(layers, VIDEO_PATHS, base_url) else RemoteStatus.RUNNING


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
    return 0.0 if value <= 0 else 100.0 if value >= 100 else float(value)


def _read_time(value: Json) -> float | None:
    # A larger number is milliseconds or nonsense, and a wrong time is worse than none.
    return float(value) if value is not None and _is_number(value) and 0 < value < 1e11 else None


def _is_number(value: Json) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _urls(
    layers: Iterable[dict[str, Json]], paths: Iterable[tuple[str, ...]], base_url: str | None
) -> tuple[str, ...]:
    """Return the http(s) URLs at some paths, each once; not more than `_MAX_URLS`."""
    found: dict[str, None] = {}
    for node in layers:
        for path in paths:
            if path[0] not in node:
                continue
            value = at(node, path) if path[0] != "resultJson" else _at_quoted(node, path)
            for text in (value,) if isinstance(value, str) else _texts_in(value):
                if url := _absolute(text, base_url):
                    found[url] = None
    return tuple(found)[:_MAX_URLS]


def _at_quoted(node: dict[str, Json], path: tuple[str, ...]) -> Json:
    """Return what is at a path below a value that is JSON as text."""
    text = node.get(path[0])
    return at(read_json(text.encode("utf-8", "replace")), path[1:]) if isinstance(text, str) else None


def _texts_in(value: Json) -> Iterator[str]:
    for item in value[: _MAX_URLS * 2] if type(value) is list else ():
        text = at(item, ("url",)) or at(item, ("video_url",)) if type(item) is dict else item
        if isinstance(text, str):
            yield text


def _absolute(text: str, base_url: str | None) -> str | None:
    """Return an address as an absolute URL with its blanks percent-encoded (fact F83); None if it is none."""
    text = text.strip()
    if base_url is not None and text.startswith("/"):
        try:
            text = urljoin(base_url, text)
        except ValueError:
            return None
    if " " in text and text.startswith(("http://", "https://")):
        text = text.replace(" ", "%20")
    return text if is_http_url(text) else None


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
        or next((e for node in layers_in(task) if (e := find_failure(node, secrets=secrets))), None)
        or _error_in_url(task, secrets)
        or ApiErrorInfo(f"the API says {status.value} and gives no reason")
    )
    cls = FAILURE_CLASSES[status]
    if cls is FailureClass.REMOTE_FAILED and is_moderation(error.search_text):
        is_output = is_output_moderation(error.search_text)
        cls = FailureClass.OUTPUT_MODERATION if is_output else FailureClass.MODERATION
    return Failure(cls, error.message, error.code, http_status, error.request_id)


def _error_in_url(task: dict[str, Json], secrets: tuple[str, ...]) -> ApiErrorInfo | None:
    """Read ``metadata.url``, where the gateway writes the reason if it has no URL (fact F71)."""
    text = at(task, ("metadata", "url"))
    if not isinstance(text, str) or is_http_url(text.strip()):
        return None
    message = sanitize_line(text, max_chars=MESSAGE_CHARS, secrets=secrets)
    return ApiErrorInfo(message, search_text=message.lower()) if message else None
