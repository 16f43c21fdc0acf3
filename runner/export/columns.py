"""The rows of a dataset: one per succeeded job, with typed columns."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from msgspec import Struct

from runner.core.filenames import file_stem
from runner.core.model import Asset, AssetKind, JobRecord, Json
from runner.core.sanitize import sanitize_line
from runner.jsontext import dumps
from runner.results.formats import utc_text
from runner.results.inline_media import replace_inline_media

COLUMNS: Mapping[str, str] = {
    "job_id": "string",
    "prompt": "string",
    "caption": "string",
    "model": "string",
    "seed": "int64",
    "width": "int64",
    "height": "int64",
    "duration_s": "float64",
    "bytes": "int64",
    "sha256": "string",
    "task_id": "string",
    "generated_at": "string",
    "request": "string",
    "metadata": "string",
}
"""
The columns and their types, which do not depend on the values: a column without a value would have no type otherwise.

``request`` and ``metadata`` are JSON, because their keys differ from job to job. ``generated_at`` is UTC, as in results.
"""

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


class Row(Struct, frozen=True):
    """
    One video of a dataset.

    Attributes:
        job_id: For messages, whatever the columns are.
        root: Which of the sources the video is in.
        source: Path of the video there, or its URL.
        name: What its files are called, without a suffix: unique in the dataset, even if case is ignored.
        key: 32 digits that are unique in the dataset.
        suffix: Of the video, with its dot.
        bytes: Length of the video.
        sha256: Its digest.
        caption: Of the video; "" if it has none.
        shard: Number of the file or folder that it is in, from 0.
        values: By column, in the order of the columns.
    """

    job_id: str
    root: int
    source: str
    name: str
    key: str
    suffix: str
    bytes: int
    sha256: str
    caption: str
    shard: int
    values: Mapping[str, Json]


def video_of(record: JobRecord) -> Asset | None:
    """Return the video that the job's present request made, or else the video that it has."""
    videos = [asset for asset in record.assets if asset.kind is AssetKind.VIDEO]
    return next((video for video in videos if video.request is None), videos[0] if videos else None)


def make_row(
    record: JobRecord, video: Asset, *, run: str, is_only_run: bool, root: int = 0, source: str | None = None
) -> Row:
    """
    Return the row of a succeeded job, in shard 0.

    Args:
        is_only_run: Whether job ids are unique in the dataset; those of several runs need not be.
        source: What its root calls the video, if not by its path.
    """
    request = record.request if video.request is None else video.request
    prompt, seed = request.get("prompt"), request.get("seed")
    prompt = _text(prompt) if isinstance(prompt, str) else None
    caption = record.metadata.get("caption")
    caption = _text(caption) if isinstance(caption, str) and caption else prompt
    name_of = record.job_id if is_only_run else f"{run}\n{record.job_id}"
    suffix = PurePosixPath(video.path).suffix.lower()
    key = hashlib.sha256(name_of.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Row(
        job_id=_text(record.job_id),
        root=root,
        source=source or video.path,
        name=file_stem(record.job_id) if is_only_run else key,
        key=key,
        suffix=suffix if _SUFFIX.fullmatch(suffix) else ".mp4",
        bytes=video.bytes,
        sha256=video.sha256,
        caption=caption or "",
        shard=0,
        values={
            "job_id": _text(record.job_id),
            "prompt": prompt,
            "caption": caption,
            "model": _text(record.model),
            "seed": seed if type(seed) is int and -(2**63) <= seed < 2**63 else None,
            "width": video.width,
            "height": video.height,
            "duration_s": video.duration_s,
            "bytes": video.bytes,
            "sha256": video.sha256,
            "task_id": None if record.task_id is None else _text(record.task_id),
            "generated_at": utc_text(record.completed_at) or utc_text(record.finished_at),
            "request": dumps(replace_inline_media(dict(request))).decode(),
            "metadata": dumps(record.metadata).decode(),
        },
    )


def place(source: str, job_id: str) -> str:
    """Return the path and the job of a video, for messages."""
    return f"{sanitize_line(source, max_chars=200)} of job {job_id!r}"


def _text(text: str) -> str:
    """Replace lone surrogates, which no file of text can hold."""
    return text.encode("utf-8", "replace").decode()
