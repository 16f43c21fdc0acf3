"""
A job in the shape of the OpenAI batch API's output, for tools that read that.

A line has ``custom_id`` and either a ``response`` (what an HTTP answer said) or an
``error`` (why there is none), as in the output and error files of a batch there.
"""

from __future__ import annotations

from runner.core.lifecycle import State
from runner.core.model import Failure, JobRecord, Json
from runner.results.line import utc_text


def batch_line(record: JobRecord, *, run: str) -> dict[str, Json]:
    """
    Show a job as a line of a batch's output.

    A job that succeeded has the task as its body, with the paths of its assets; one that the API
    answered with an HTTP error has that answer; any other has an ``error`` with our class as its code.
    """
    response = _response(record)
    return {
        "id": f"{run}/{record.index}",
        "custom_id": record.job_id,
        "response": response,
        "error": None if response is not None else _error(record),
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
        "created_at": _whole(record.submitted_at),
        "completed_at": _whole(record.finished_at),
        "assets": [
            {"kind": asset.kind.value, "path": asset.path, "sha256": asset.sha256} for asset in record.assets
        ],
    }


def _whole(at: float | None) -> int | None:
    return None if utc_text(at) is None or at is None else int(at)


def _error(record: JobRecord) -> dict[str, Json]:
    error: Failure | None = record.error
    if error is None:
        return {"code": record.state.value, "message": f"the job is {record.state.value}"}
    return {"code": error.cls.value, "message": error.message}
