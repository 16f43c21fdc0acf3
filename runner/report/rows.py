"""What the page of a report shows of each job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from runner.core.model import Asset, AssetKind, Failure, JobRecord, Json
from runner.core.sanitize import sanitize_text
from runner.jsontext import dumps
from runner.results.inline_media import replace_inline_media

MAX_JOBS = 10_000
"""The most jobs that the page lists; its counts and charts include all jobs."""

Address = Callable[[Asset], str]

_MAX_VALUE_CHARS = 300
_MAX_VALUES = 40
_MAX_WARNINGS = 5


class JobRow(NamedTuple):
    """
    What the page shows of a job. The page's script reads the fields by their names.

    Attributes:
        first_at: Time of the first attempt; this and the other times are in seconds since 1970.
        params: Key and text of each request field except model and prompt.
        metadata: Key and text of each metadata field.
        video: Path of the video relative to the run directory, or web address, or None.
        width, height, duration_s, bytes: Of the video.
        takes: The same of other videos of the job, such as those before it was submitted again.
        last_frame: The same of the last frame, or None.
        checks: Name and text of each finding of checks.
        warnings: One sentence each, the first ones.
        verdict: ``keep`` or ``reject``, or None.
        verdict_why: The checks that rejected the video, or "".
    """

    id: str
    state: str
    model: str
    cls: str | None
    message: str
    prompt: str
    params: list[tuple[str, str]]
    metadata: list[tuple[str, str]]
    first_at: float | None
    submitted_at: float | None
    generate_s: float | None
    download_s: float | None
    finished_at: float | None
    task_id: str
    attempts: int
    throttled: int
    video: str | None
    width: int | None
    height: int | None
    duration_s: float | None
    bytes: int | None
    takes: list[str]
    last_frame: str | None
    checks: list[tuple[str, str]]
    warnings: list[str]
    verdict: str | None
    verdict_why: str


def job_row(record: JobRecord, verdict: str | None, address: Address = attrgetter("path")) -> JobRow:
    """
    Return what the page shows of a job, its texts shortened.

    Args:
        address: Returns where the page finds an asset.
    """
    videos = _videos(record)
    video = videos[0] if videos else None
    # The video may be older than the job's request.
    own = record.request if video is None or video.request is None else video.request
    request = replace_inline_media(own)
    error = record.error
    last_frame = next((asset for asset in record.assets if asset.kind is AssetKind.LAST_FRAME), None)
    return JobRow(
        id=shorten(record.job_id, 200),
        state=record.state.value,
        model=shorten(record.model, 200),
        cls=None if error is None else error.cls.value,
        message="" if error is None else _message(error),
        prompt=shorten(str(request.get("prompt") or ""), 2000),
        params=_pairs({key: value for key, value in request.items() if key not in ("model", "prompt")}),
        metadata=_pairs(record.metadata),
        first_at=_rounded(record.attempts[0].submitted_at if record.attempts else record.submitted_at),
        submitted_at=_rounded(record.submitted_at),
        generate_s=_rounded(record.generate_s),
        download_s=_rounded(record.download_s),
        finished_at=_rounded(record.finished_at),
        task_id=shorten(record.task_id or "", 200),
        attempts=len(record.attempts),
        throttled=sum([attempt.outcome == "throttled" for attempt in record.attempts]),
        video=None if video is None else address(video),
        width=None if video is None else video.width,
        height=None if video is None else video.height,
        duration_s=None if video is None else video.duration_s,
        bytes=None if video is None else video.bytes,
        takes=[address(take) for take in videos[1:]],
        last_frame=None if last_frame is None else address(last_frame),
        checks=_pairs({name: _finding(value) for name, value in (record.checks or {}).items()}),
        warnings=[shorten(warning, _MAX_VALUE_CHARS) for warning in record.warnings[:_MAX_WARNINGS]],
        verdict=verdict,
        verdict_why="" if record.verdict is None else shorten(str(record.verdict["why"]), _MAX_VALUE_CHARS),
    )


def row_bytes(record: JobRecord, verdict: str | None, address: Address = attrgetter("path")) -> bytes:
    """Return what the page shows of a job as JSON for its script."""
    return safe_json(job_row(record, verdict, address))


_UNSAFE = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "<>&\u2028\u2029"}


def safe_json(value: Json) -> bytes:
    r"""
    Encode a value as JSON that can't contain an HTML tag, a comment or the end of its script element.

    >>> safe_json({"prompt": "</script><!--"})
    b'{"prompt":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = dumps(value)
    # In JSON these characters occur only inside strings, where the escape is equivalent.
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text


def shorten(text: str, max_chars: int) -> str:
    """Return a text as the page shows it."""
    return sanitize_text(text, max_chars=max_chars)


def _videos(record: JobRecord) -> list[Asset]:
    """Return the videos of a job, first the one that its present request made."""
    videos = [asset for asset in record.assets if asset.kind is AssetKind.VIDEO]
    return videos if len(videos) < 2 else sorted(videos, key=lambda video: video.request is not None)


def _message(error: Failure) -> str:
    details = shorten(error.details, 100)
    return shorten(error.message, 500) + (f" ({details})" if details else "")


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    if not values:
        return []
    pairs = [
        (shorten(str(key), 100), _value_text(value)) for key, value in islice(values.items(), _MAX_VALUES)
    ]
    if len(values) > _MAX_VALUES:
        pairs.append(("…", f"{len(values) - _MAX_VALUES} more"))
    return pairs


def _finding(value: Json) -> Json:
    """
    Return what a check found as text; what a command answered as it is.

    >>> _finding({"ok": False, "black_s": 2.5, "of": None}), _finding(0.7)
    ('failed, black_s 2.5', 0.7)
    """
    if not isinstance(value, dict) or not isinstance(value.get("ok"), bool):
        return value
    numbers = (f"{name} {number}" for name, number in value.items() if name != "ok" and number is not None)
    return ", ".join(["ok" if value["ok"] else "failed", *numbers])


def _value_text(value: Json) -> str:
    return shorten(value if isinstance(value, str) else dumps(value).decode(), _MAX_VALUE_CHARS)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
