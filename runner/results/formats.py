"""
The formats of results: lines of `results.jsonl`, `summary.json`, and lines of an OpenAI batch's output.

`schemas/result.schema.json` describes a line of `results.jsonl`. One statement loads a file of any size.
DuckDB and `datasets` infer the types from the start of a file, where perhaps no job has failed yet, so they
need to be told to read on::

    pandas.read_json("results.jsonl", lines=True)
    duckdb.sql("SELECT * FROM read_json('results.jsonl', sample_size=-1)")
    datasets.load_dataset("json", data_files="results.jsonl", chunksize=1 << 30)
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

from runner.core.cost import CostSummary, SpentOn, cost_json
from runner.core.lifecycle import State
from runner.core.model import Asset, Attempt, Failure, JobRecord, Json
from runner.core.money import nanos_text
from runner.core.summary import DurationSummary, Summary
from runner.core.wire_vocabulary import completed_usage
from runner.jsontext import dumps
from runner.results.inline_media import replace_inline_media
from runner.results.writers import atomic_write

SCHEMA_VERSION = 1
_EPOCH = date(1970, 1, 1).toordinal()


def line_bytes(record: JobRecord, *, run: str, gateway: str) -> bytes:
    """Return a job as one line of compact JSON, including its line feed."""
    return dumps(result_line(record, run=run, gateway=gateway)) + b"\n"


def result_line(record: JobRecord, *, run: str, gateway: str) -> dict[str, Json]:
    """
    Return a job in the format of `results.jsonl`.

    Every key is always there, so that a column has one type. The request is as sent, except for pictures
    inside it, which are replaced by placeholders (see `inline_media`). ``schema`` and ``timeout_s`` are there
    so that the file alone is enough for a rerun.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "gateway": gateway,
        "job_id": record.job_id,
        "index": record.index,
        "status": record.state.value,
        "model": record.model,
        "schema": record.schema,
        "request": replace_inline_media(record.request),
        "metadata": dict(record.metadata),
        "timeout_s": record.timeout_s,
        "task_id": record.task_id,
        "remote_status": record.remote_status,
        "submitted_at": utc_text(record.submitted_at),
        "completed_at": utc_text(record.completed_at),
        "finished_at": utc_text(record.finished_at),
        "generate_s": _milliseconds(record.generate_s),
        "download_s": _milliseconds(record.download_s),
        "polls": record.polls,
        "usage": completed_usage(record.usage, record.assets),
        "cost": cost_json(record.costs),
        "takes": sum([attempt.made_task for attempt in record.attempts]),
        "attempts": [_attempt(attempt) for attempt in record.attempts],
        "assets": [_asset(asset) for asset in record.assets],
        "warnings": record.warnings,
        "checks": record.checks,
        "verdict": record.verdict,
        "error": _error(record.error),
    }


def utc_text(at: float | None) -> str | None:
    """
    Format a time as UTC with milliseconds; None if there is none, or it is in no calendar.

    >>> utc_text(1795226401.25), utc_text(1e30)
    ('2026-11-21T02:00:01.250Z', None)
    """
    if at is None:
        return None
    try:
        whole_s, ms = divmod(round(at * 1000), 1000)
        return f"{_second_text(whole_s)}.{ms:03}Z"
    except (ValueError, OverflowError):
        return None


# A line has four times, which were most of its cost, and jobs that end together share their seconds.
@lru_cache(maxsize=256)
def _second_text(seconds: int) -> str:
    day, rest_s = divmod(seconds, 86_400)
    minutes, rest_s = divmod(rest_s, 60)
    return f"{date.fromordinal(_EPOCH + day).isoformat()}T{minutes // 60:02}:{minutes % 60:02}:{rest_s:02}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _attempt(attempt: Attempt) -> dict[str, Json]:
    return {
        "number": attempt.number,
        "submitted_at": utc_text(attempt.submitted_at),
        "outcome": attempt.outcome,
        "task_id": attempt.task_id,
        "http_status": attempt.http_status,
        "error": _error(attempt.error),
    }


def _asset(asset: Asset) -> dict[str, Json]:
    value = {
        "kind": asset.kind.value,
        "path": asset.path,
        "bytes": asset.bytes,
        "sha256": asset.sha256,
        "content_type": asset.content_type,
        "width": asset.width,
        "height": asset.height,
        "duration_s": asset.duration_s,
        "codec": asset.codec,
        "fps": asset.fps,
        "has_sound": asset.has_sound,
        "url": asset.url,
    }
    if asset.take is not None:
        value["take"] = asset.take
    if asset.request is not None:
        value["request"] = replace_inline_media(asset.request)
    return value


def _error(failure: Failure | None) -> dict[str, Json] | None:
    if failure is None:
        return None
    return {
        "class": failure.cls.value,
        "code": failure.code,
        "message": failure.message,
        "http_status": failure.http_status,
        "request_id": failure.request_id,
    }


def summary_json(summary: Summary, *, run: str, gateway: str) -> dict[str, Json]:
    """Return a summary in the format of `summary.json`; every status has its count, including zeros."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "gateway": gateway,
        "jobs": summary.jobs,
        "by_status": {state.value: count for state, count in summary.by_state.items()},
        "by_class": {cls.value: count for cls, count in summary.by_class.items()},
        "by_model": {
            name: {
                "jobs": model.jobs,
                "by_status": {state.value: count for state, count in model.by_state.items() if count},
                "generate_s": _durations(model.generate),
            }
            for name, model in summary.by_model.items()
        },
        "generate_s": _durations(summary.generate),
        "download_s": _durations(summary.download),
        "assets": summary.assets,
        "asset_bytes": summary.asset_bytes,
        "attempts": summary.attempts,
        "throttled": summary.throttled,
        "polls": summary.polls,
        "warnings": summary.warnings,
        "cost": summary_cost_json(summary.cost),
        "first_submitted_at": utc_text(summary.first_submitted_at),
        "last_finished_at": utc_text(summary.last_finished_at),
    }


def summary_cost_json(cost: CostSummary) -> list[Json]:
    """Return what a run cost, one entry a currency; amounts are decimal text."""

    def listed(entries: tuple[SpentOn, ...], currency: str) -> dict[str, Json]:
        return {
            each.name: {
                "attempts": each.attempts,
                "spent": nanos_text(each.amount),
                "estimate": nanos_text(each.estimate),
            }
            for each in entries
            if each.currency == currency
        }

    return [
        {
            **spend.json(),
            "by_model": listed(cost.by_model, spend.currency),
            "by_day": listed(cost.by_day, spend.currency),
        }
        for spend in cost.spend
    ]


def write_summary(path: Path, summary: Summary, *, run: str, gateway: str) -> None:
    """Write `summary.json`, atomically and durably."""
    with atomic_write(path) as file:
        file.write(dumps(summary_json(summary, run=run, gateway=gateway)) + b"\n")


def _durations(durations: DurationSummary | None) -> Json:
    if durations is None:
        return None
    return {
        "count": durations.count,
        "mean": round(durations.mean_s, 3),
        "p50": round(durations.p50_s, 3),
        "p90": round(durations.p90_s, 3),
        "max": round(durations.max_s, 3),
    }


def openai_batch_line(record: JobRecord, *, run: str) -> dict[str, Json]:
    """
    Return a job in the format of a line of an OpenAI batch's output.

    The response of a job that succeeded has the task as its body, with the paths of its assets; that of a job
    that the API refused has the HTTP error; any other job has an ``error`` with the failure class as its code.
    """
    response = _response(record)
    return {
        "id": f"{run}/{record.index}",
        "custom_id": record.job_id,
        "response": response,
        "error": None if response is not None else _openai_error(record),
    }


def _response(record: JobRecord) -> dict[str, Json] | None:
    if record.state is State.SUCCEEDED:
        return {"status_code": 200, "request_id": record.task_id, "body": _task(record)}
    error = record.error
    if record.state is State.FAILED and error is not None and (error.http_status or 0) >= 400:
        return {
            "status_code": error.http_status,
            "request_id": error.request_id,
            "body": {"error": {"message": error.message, "type": error.cls.value, "code": error.code}},
        }
    return None


def _task(record: JobRecord) -> dict[str, Json]:
    return {
        "id": record.task_id,
        "object": "video",
        "model": record.model,
        "status": "completed",
        "created_at": _whole_seconds(record.submitted_at),
        "completed_at": _whole_seconds(record.finished_at),
        "assets": [
            {"kind": asset.kind.value, "path": asset.path, "sha256": asset.sha256} for asset in record.assets
        ],
    }


def _whole_seconds(at: float | None) -> int | None:
    return None if utc_text(at) is None or at is None else int(at)


def _openai_error(record: JobRecord) -> dict[str, Json]:
    error = record.error
    if error is None:
        return {"code": record.state.value, "message": f"the job is {record.state.value}"}
    return {"code": error.cls.value, "message": error.message}
