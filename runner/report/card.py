"""A job as the page shows it: a short row, so that ten thousand of them are a page of megabytes and not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from runner.core.model import AssetKind, JobRecord, Json
from runner.jsontext import dumps
from runner.report.words import plain
from runner.results.placeholder import shorten

_LONGEST_VALUE = 300
_MOST_VALUES = 40


class Card(NamedTuple):
    """
    What the page knows of a job. The page's script reads the fields by their names.

    Attributes:
        place: In the manifest, from 0.
        first_at: When its first attempt was made; the other times likewise in seconds since 1970.
        params: The request but for model and prompt, and ``metadata`` likewise: key and text.
        video: Path of the video, relative to the run directory, or None.
    """

    place: int
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
    poster: str | None
    facts: str


def card(record: JobRecord) -> Card:
    """Shorten a job to what the page shows of it."""
    video = _path(record, AssetKind.VIDEO)
    request = shorten(record.request)
    error = record.error
    return Card(
        place=record.index,
        id=plain(record.job_id, 200),
        state=record.state.value,
        model=plain(record.model, 200),
        cls=None if error is None else error.cls.value,
        message="" if error is None else _message(error.message, error.code, error.http_status),
        prompt=plain(str(request.get("prompt") or "")),
        params=_pairs({key: value for key, value in request.items() if key not in ("model", "prompt")}),
        metadata=_pairs(record.metadata),
        first_at=_rounded(record.attempts[0].submitted_at if record.attempts else record.submitted_at),
        submitted_at=_rounded(record.submitted_at),
        generate_s=_rounded(record.generate_s),
        download_s=_rounded(record.download_s),
        finished_at=_rounded(record.finished_at),
        task_id=plain(record.task_id or "", 200),
        attempts=len(record.attempts),
        throttled=sum(attempt.outcome == "throttled" for attempt in record.attempts),
        video=video,
        poster=_path(record, AssetKind.LAST_FRAME),
        facts=_facts(record),
    )


def _path(record: JobRecord, kind: AssetKind) -> str | None:
    return next((asset.path for asset in record.assets if asset.kind is kind), None)


def _message(message: str, code: str | None, http_status: int | None) -> str:
    known = ", ".join(filter(None, (plain(code or "", 100), f"HTTP {http_status}" if http_status else "")))
    return plain(message, 500) + (f" ({known})" if known else "")


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    pairs = [(plain(str(key), 100), _shown(value)) for key, value in list(values.items())[:_MOST_VALUES]]
    if len(values) > _MOST_VALUES:
        pairs.append(("…", f"{len(values) - _MOST_VALUES} more"))
    return pairs


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else dumps(value).decode()
    return plain(text, _LONGEST_VALUE)


def _facts(record: JobRecord) -> str:
    """Say of the video what its file says of itself."""
    for asset in record.assets:
        if asset.kind is AssetKind.VIDEO:
            shape = f"{asset.width} × {asset.height}" if asset.width and asset.height else ""
            length = f"{asset.duration_s:.1f} s" if asset.duration_s else ""
            return _joined((shape, length, f"{asset.bytes / 1e6:.1f} MB"))
    return ""


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
