"""A CSV table of jobs, for spreadsheets."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from runner.core.model import Asset, AssetKind, JobRecord, Json, Verdicts
from runner.core.sanitize import sanitize_text
from runner.jsontext import dumps
from runner.results.formats import utc_text
from runner.results.inline_media import replace_inline_media
from runner.results.writers import atomic_write

MAX_KEYS = 1_000
"""Of metadata and requests together: a spreadsheet has 16,384 columns."""
_MAX_CELL_CHARS = 32_000
"""A cell of a spreadsheet holds 32,767."""
# A spreadsheet computes a text that starts like this, after what it skips; the last four are as wide as Chinese letters.
_FORMULA = re.compile(r"""[\s"']*[=+\-@＝＋－＠]|[\t\n]""")


class TooManyKeys(Exception):
    """The jobs have too many different keys for a table."""


def write_csv(path: Path, read_jobs: Callable[[], Iterable[JobRecord]], verdicts: Verdicts) -> None:
    """
    Write one row per job, with a column for each key of its metadata and its request.

    Texts that a spreadsheet would compute as formulas start with an apostrophe, which makes them text there.

    Args:
        read_jobs: Is called twice: for the columns and for the rows.
        verdicts: For the column of that name.

    Raises:
        TooManyKeys: There are more than `MAX_KEYS` keys.
    """
    metadata, request = _keys(read_jobs())
    with atomic_write(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "replace"))
        names = [*(f"metadata.{key}" for key in metadata), *(f"request.{key}" for key in request)]
        writer.writerow(map(_cell, [*_OWN_COLUMNS, *names]))
        for record in read_jobs():
            own = _own_values(record, verdicts.of(record))
            body = replace_inline_media(record.request)
            rest = [*(record.metadata.get(key) for key in metadata), *(body.get(key) for key in request)]
            writer.writerow(map(_cell, [*own, *rest]))


_OWN_COLUMNS = (
    "job_id",
    "index",
    "status",
    "class",
    "message",
    "verdict",
    "model",
    "prompt",
    "video",
    "bytes",
    "sha256",
    "width",
    "height",
    "duration_s",
    "last_frame",
    "task_id",
    "submitted_at",
    "completed_at",
    "finished_at",
    "generate_s",
    "download_s",
    "attempts",
    "warnings",
)


def _own_values(record: JobRecord, verdict: str | None) -> tuple[Json, ...]:
    video, last_frame = _asset(record, AssetKind.VIDEO), _asset(record, AssetKind.LAST_FRAME)
    about_video = (
        (None,) * 6
        if video is None
        else (video.url or video.path, video.bytes, video.sha256, video.width, video.height, video.duration_s)
    )
    return (
        record.job_id,
        record.index,
        record.state.value,
        None if record.error is None else record.error.cls.value,
        None if record.error is None else record.error.message,
        verdict,
        record.model,
        record.request.get("prompt"),
        *about_video,
        None if last_frame is None else last_frame.url or last_frame.path,
        record.task_id,
        utc_text(record.submitted_at),
        utc_text(record.completed_at),
        utc_text(record.finished_at),
        record.generate_s,
        record.download_s,
        len(record.attempts),
        "\n".join(record.warnings) or None,
    )


def _asset(record: JobRecord, kind: AssetKind) -> Asset | None:
    return next((asset for asset in record.assets if asset.kind is kind), None)


def _keys(jobs: Iterable[JobRecord]) -> tuple[list[str], list[str]]:
    """Return the keys of the metadata and of the requests, in the order in which they come."""
    metadata: dict[str, None] = {}
    request: dict[str, None] = {}
    for record in jobs:
        metadata.update(dict.fromkeys(record.metadata))
        request.update(dict.fromkeys(key for key in record.request if key not in ("model", "prompt")))
        if len(metadata) + len(request) > MAX_KEYS:
            raise TooManyKeys
    return list(metadata), list(request)


def _cell(value: Json) -> Json:
    r"""
    Return a value as it is written: numbers as they are, texts so that no spreadsheet computes them.

    >>> _cell("=1+1"), _cell(" @SUM(A1)"), _cell(-5), _cell(True), _cell(["a"])
    ("'=1+1", "' @SUM(A1)", -5, 'true', '["a"]')
    """
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = value if isinstance(value, str) else dumps(value).decode()
    text = sanitize_text(text, max_chars=_MAX_CELL_CHARS)
    return f"'{text}" if _FORMULA.match(text) else text
