"""Convert jobs, attempts, assets and failures to rows of ``run.db``, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from runner.core.cost import Cost
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Failure, FailureClass, Job, JobRecord, Json
from runner.core.problem import Position
from runner.jsontext import loads

Row = tuple[Any, ...]

JOB_COLUMNS = (
    "seq, job_id, idx, model, state, attempt, task_id, other_task_id, remote_status, key, submitted_at, "
    "completed_at, finished_at, generate_s, download_s, polls, timeout_s, error, warnings, has_files"
)
"""In the order of the fields of `Job`."""


class BulkStatement(Struct, frozen=True):
    """A statement that writes any number of rows: the text before their values, their number of columns, the text after."""

    before: str
    columns: int
    after: str = ""

    def statement(self, count: int) -> str:
        """
        Return the statement for a number of rows.

        >>> BulkStatement("INSERT INTO parts VALUES ", 3).statement(2)
        'INSERT INTO parts VALUES (?,?,?),(?,?,?)'
        """
        one = f"({','.join('?' * self.columns)})"
        return self.before + ",".join([one] * count) + self.after


_ROWS_AT_ONCE = (32, 8, 4, 2, 1)
"""Rows that one statement writes: few sizes, so that each statement is prepared once."""


def insert_rows(connection: sqlite3.Connection, bulk: BulkStatement, batch: Sequence[Row]) -> None:
    """
    Write rows with as few statements as their number allows.

    A statement has a cost of its own, a third of the cost of one row. And `sqlite3` releases the interpreter's
    lock for each, and has to wait for it afterwards while the event loop is busy.
    """
    start = 0
    for size in _ROWS_AT_ONCE:
        while len(batch) - start >= size:
            connection.execute(bulk.statement(size), list(chain.from_iterable(batch[start : start + size])))
            start += size


_CHANGING = [
    "state",
    "attempt",
    "task_id",
    "other_task_id",
    "remote_status",
    "key",
    "submitted_at",
    "completed_at",
    "finished_at",
    "generate_s",
    "download_s",
    "polls",
    "error_class",
    "error",
    "warnings",
]

SAVE_JOBS = BulkStatement(
    f"UPDATE jobs SET {', '.join(f'{name} = new.column{n}' for n, name in enumerate(_CHANGING, 1))} FROM (VALUES ",
    len(_CHANGING) + 1,
    f") AS new WHERE jobs.seq = new.column{len(_CHANGING) + 1}",
)
SAVE_INTENTS = BulkStatement(
    SAVE_JOBS.before, SAVE_JOBS.columns, f"{SAVE_JOBS.after} AND jobs.state = 'pending'"
)
SAVE_ATTEMPTS = BulkStatement("INSERT OR REPLACE INTO attempts VALUES ", 8)
SAVE_ASSETS = BulkStatement("INSERT OR REPLACE INTO assets VALUES ", 10)
DROP_PARTS = BulkStatement("DELETE FROM parts WHERE (seq, kind) IN (VALUES ", 2, ")")

SAVE_ATTEMPT = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
DROP_OLD_ASSETS = "DELETE FROM assets WHERE seq = ? AND attempt < ?"
SAVE_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)"
RAISE_EPOCH = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value"
SAVE_UPLOAD = "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)"
SAVE_USAGE = "INSERT OR REPLACE INTO usages VALUES (?, ?, ?)"
SAVE_TRACKS = "INSERT OR REPLACE INTO tracks VALUES (?, ?, ?)"
SAVE_CHECKS = "INSERT OR REPLACE INTO checks VALUES (?, ?, ?)"
SAVE_URLS = "INSERT OR REPLACE INTO asset_urls VALUES (?, ?, ?)"
SAVE_PART = "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)"

RECORD_COLUMNS = (
    "j.seq, j.job_id, j.idx, j.model, s.schema, s.request, j.digest, s.metadata, j.state, j.timeout_s, "
    "j.task_id, j.remote_status, j.submitted_at, j.completed_at, j.finished_at, j.generate_s, j.download_s, "
    "j.polls, s.warnings, j.warnings, j.error, s.file, s.line, s.col, j.is_gone, j.attempt"
)
"""In the order of the fields of `JobRecord`, after the key; the number of the newest attempt comes last."""


# A lookup in a dictionary takes a tenth of the time of one in the enumeration.
_STATES = {state.value: state for state in State}
_KINDS = {kind.value: kind for kind in AssetKind}

# Created once: `json.dumps` creates an encoder for each call with options.
canonical: Callable[[Json], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Encodes as JSON, always in the same form, so that two texts can be compared."""


def parse(text: str) -> dict[str, Json]:
    """Decode an object that `canonical` encoded."""
    value: dict[str, Json] = json.loads(text)
    return value


def job_row(job: Job) -> Row:
    """Return the row of a job for `SAVE_JOBS`, in its current state."""
    error = job.error
    return (
        job.state.value,
        job.attempt,
        job.task_id,
        job.other_task_id,
        job.remote_status,
        job.key,
        job.submitted_at,
        job.completed_at,
        job.finished_at,
        job.generate_s,
        job.download_s,
        job.polls,
        None if error is None else error.cls.value,
        failure_text(error),
        canonical(job.warnings) if job.warnings else None,
        job.seq,
    )


def read_job(row: sqlite3.Row | Row, *, waiting_since: float) -> Job:
    """Convert a row of `JOB_COLUMNS` to a job."""
    seq, job_id, index, model, state, *values, error, warnings, has_files = row
    fields = (seq, job_id, index, model, _STATES[state], *values, read_failure(error), _texts(warnings))
    job = Job(*fields)
    job.has_files, job.waiting_since = bool(has_files), waiting_since
    return job


def attempt_row(seq: int, attempt: Attempt) -> Row:
    """Return the row of an attempt for `SAVE_ATTEMPT`."""
    return (
        seq,
        attempt.number,
        attempt.submitted_at,
        attempt.outcome,
        attempt.task_id,
        attempt.http_status,
        failure_text(attempt.error),
        attempt.key,
    )


def asset_row(seq: int, attempt: int, asset: Asset) -> Row:
    """Return the row of an asset for `SAVE_ASSETS`."""
    return (
        seq,
        asset.kind.value,
        asset.path,
        asset.bytes,
        asset.sha256,
        asset.content_type,
        asset.width,
        asset.height,
        asset.duration_s,
        attempt,
    )


def tracks_row(job: Job, assets: Sequence[Asset]) -> Row | None:
    """Return the row of the tracks of a job's video for `SAVE_TRACKS`; None if nothing is known of them."""
    for asset in assets:
        if asset.codec is not None or asset.fps is not None or asset.has_sound is not None:
            return (job.seq, job.attempt, canonical([asset.codec, asset.fps, asset.has_sound]))
    return None


def urls_row(job: Job, assets: Iterable[Asset]) -> Row | None:
    """Return the row of the URLs of a job's assets for `SAVE_URLS`; None if they have none."""
    urls = {asset.kind.value: asset.url for asset in assets if asset.url is not None}
    return (job.seq, job.attempt, canonical(urls)) if urls else None


def read_attempt(row: Sequence[Any]) -> Attempt:
    """Convert a row of ``attempts``, without its ``seq``, to an attempt."""
    *values, error, key = row
    return Attempt(*(*values, read_failure(error), key))


def read_asset(
    row: Sequence[Any],
    replaced: Mapping[tuple[int, int], str],
    tracks: Mapping[tuple[int, int], str] = MappingProxyType({}),
    urls: Mapping[tuple[int, int], str] = MappingProxyType({}),
) -> Asset:
    """
    Convert a row of ``assets`` to an asset.

    Args:
        replaced: Requests that were replaced, by the keys of their jobs and the numbers of their attempts.
        tracks: What is known of the tracks of videos, in the same way.
        urls: The URLs of assets by their kind, in the same way.
    """
    seq, kind, *values, attempt = row
    request = replaced.get((seq, attempt))
    known = tracks.get((seq, attempt)) if kind == AssetKind.VIDEO else None
    fields = (
        _KINDS[kind],
        *values,
        None if request is None else loads(request),
        *(() if known is None else loads(known)),
    )
    asset = Asset(*fields)
    found = urls.get((seq, attempt))
    return asset if found is None else replace(asset, url=json.loads(found).get(kind))


def read_record(
    row: Sequence[Any],
    attempts: tuple[Attempt, ...],
    assets: tuple[Asset, ...],
    usage: str | None = None,
    findings: str | None = None,
    costs: tuple[Cost, ...] = (),
) -> JobRecord:
    """Convert a row of `RECORD_COLUMNS` to a record."""
    found = {} if findings is None else loads(findings)
    (_, job_id, index, model, schema, request, digest, metadata, state, *values, spec_warnings, warnings,
     error, file, line, column, is_gone, _) = row  # fmt: skip
    fields = (
        job_id,
        index,
        model,
        schema,
        loads(request),
        digest,
        {} if metadata == "{}" else loads(metadata),
        _STATES[state],
        *values,
        attempts,
        assets,
        tuple(dict.fromkeys((*_texts(spec_warnings), *_texts(warnings), *found.get("warnings", ())))),
        read_failure(error),
        Position(file, line, column),
        bool(is_gone),
        None if usage is None else loads(usage),
        found.get("checks"),
        found.get("verdict"),
        costs,
    )
    return JobRecord(*fields)


def failure_text(failure: Failure | None) -> str | None:
    """Encode a failure as a JSON list."""
    if failure is None:
        return None
    return canonical(
        [failure.cls.value, failure.message, failure.code, failure.http_status, failure.request_id]
    )


def read_failure(text: str | None) -> Failure | None:
    """Decode what `failure_text` returned."""
    if text is None:
        return None
    cls, *values = json.loads(text)
    return Failure(FailureClass(cls), *values)


def _texts(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text and text != "[]" else ()
