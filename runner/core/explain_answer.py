"""Explain how an answer of the API is read, and what a run would do with it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

from runner.core.classify import classify_poll, classify_submit
from runner.core.model import Failure, Json
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    BadBaseUrl,
    Denied,
    KeyRefused,
    NoChannel,
    Polled,
    PollOutcome,
    Rejected,
    RemoteTask,
    SubmitOutcome,
    Throttled,
    Transient,
    Unknown,
)
from runner.core.sanitize import redact, sanitize_line
from runner.core.wire_vocabulary import read_json

_SHOWN_CHARS = 300
_MAX_DEPTH = 8

_HEAD = re.compile(rb"^HTTP/[0-9.]+ ([0-9]{3})[^\n]*\n", re.MULTILINE)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")

_THEN: Mapping[type, str] = {
    Accepted: "the task exists and is paid for: it is polled, and its video downloaded",
    Rejected: "the job fails; nothing was charged",
    Throttled: "all submissions slow down, and the job is submitted again",
    NoChannel: "the job is submitted again after a pause, and fails after retry.attempts",
    KeyRefused: "the job stays pending, and the run stops when no other key is left",
    BadBaseUrl: "the job stays pending, and the run stops: the base URL is wrong",
    Ambiguous: "the job becomes uncertain and is never submitted again by itself: settle it with runner resolve",
    Unknown: "the task is polled again; three such answers in a row, once it is not young, make it lost",
    Denied: "the task is asked for with the other keys, and polled again",
    Transient: "the answer says nothing about the task, which is polled again until poll.timeout",
}


class Reading(Struct, frozen=True):
    """
    How an answer is read.

    Attributes:
        outcome: Such as ``accepted`` or ``uncertain``; for a query the task's state, if the answer shows it.
        cls: The failure class, or None.
        message: The reason of a failure, or None.
        then: What a run would do.
    """

    outcome: str
    then: str
    cls: str | None = field(default=None, name="class")
    code: str | None = None
    message: str | None = None


class Explanation(Struct, frozen=True):
    """
    How an answer is read, as one to a submission and as one to a query.

    Attributes:
        id: The task's id, or None.
        status: The status word as it is written, or None.
        state: What it means, or None if the answer shows no task.
        asset: Addresses of the video, in the order to try, without their queries.
        last_frame: The same for the last frame.
        places: Where in the answer each of these was found, such as ``data.task_id``.
    """

    http_status: int
    id: str | None
    status: str | None
    state: str | None
    asset: tuple[str, ...]
    last_frame: tuple[str, ...]
    places: Mapping[str, str]
    submission: Reading
    query: Reading


def explain_answer(text: bytes, *, http_status: int = 200) -> Explanation:
    """
    Explain an answer.

    Args:
        text: A body, or a whole HTTP response with its head, whose status then counts.
        http_status: Of a body alone.

    >>> explained = explain_answer(b'{"data": {"taskId": "t1", "state": "done", "video": {"url": "https://x/a.mp4"}}}')
    >>> explained.id, explained.state, explained.asset, explained.places["id"]
    ('t1', 'succeeded', ('https://x/a.mp4',), 'data.taskId')
    """
    http_status, headers, body = _split(text, http_status)
    submitted = classify_submit(http_status, headers, body, 0.0)
    # Any base makes relative addresses visible.
    polled = classify_poll(http_status, headers, body, 0.0, base_url="https://GATEWAY")
    task = polled.task if isinstance(polled, Polled) else None
    accepted = submitted.task if isinstance(submitted, Accepted) else None
    shown = accepted or task
    ids = shown.ids if shown else ()
    values = {
        "id": ids[0] if ids else None,
        "status": task.raw_status if task else None,
        "asset": task.video_urls[0] if task and task.video_urls else None,
        "last_frame": task.last_frame_urls[0] if task and task.last_frame_urls else None,
        "reason": task.error.message if task and task.error else None,
    }
    document = read_json(body)
    places = {name: place for name, value in values.items() if value and (place := _find(document, value))}
    return Explanation(
        http_status=http_status,
        id=_shown(values["id"]),
        status=_shown(values["status"]),
        state=task.status.value if task else None,
        asset=tuple(map(redact, task.video_urls)) if task else (),
        last_frame=tuple(map(redact, task.last_frame_urls)) if task else (),
        places=places,
        submission=_reading(submitted),
        query=_reading(polled),
    )


def _split(text: bytes, http_status: int) -> tuple[int, dict[str, str], bytes]:
    """Split an HTTP response, if it is one; what is in front of its status line is ignored."""
    head = _HEAD.search(text)
    if head is None:
        return http_status, {}, text
    end = _END_OF_HEAD.search(text, head.end() - 2)
    lines = text[head.end() : end.start() if end else len(text)].decode("latin-1").splitlines()
    headers = {
        name.strip(): value.strip() for name, colon, value in (x.partition(":") for x in lines) if colon
    }
    return int(head[1]), headers, text[end.end() :] if end else b""


def _reading(outcome: SubmitOutcome | PollOutcome) -> Reading:
    failure: Failure | None
    if isinstance(outcome, Polled):
        name, then, failure = _of_task(outcome.task)
    else:
        name = {"Ambiguous": "uncertain"}.get(type(outcome).__name__, _words(type(outcome).__name__))
        then, failure = _THEN[type(outcome)], None if isinstance(outcome, Accepted) else outcome.failure
    if failure is None:
        return Reading(name, then)
    return Reading(name, then, failure.cls.value, failure.code, failure.message)


def _of_task(task: RemoteTask) -> tuple[str, str, Failure | None]:
    if task.error is not None:
        return task.status.value, f"the job fails with class {task.error.cls.value}", task.error
    if not task.status.is_terminal:
        return task.status.value, "the task is polled again", None
    if task.video_urls:
        return task.status.value, "the video is downloaded from the first address that gives it", None
    return (
        task.status.value,
        "the video is downloaded from the gateway's /content, since no address is named",
        None,
    )


def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _shown(text: str | None) -> str | None:
    return None if text is None else sanitize_line(text, max_chars=_SHOWN_CHARS)


def _find(node: Json, wanted: str, path: str = "", depth: int = 0) -> str | None:
    """Return the path of a value in an answer, such as ``data[0].id``; None if it is not there as such."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(node, str | int) and not isinstance(node, bool):
        return path if str(node).strip() == wanted else None
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        below = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}".lstrip(".")
        if found := _find(value, wanted, below, depth + 1):
            return found
    return None
