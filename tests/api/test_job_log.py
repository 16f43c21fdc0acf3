"""The log of every step of a job: what is saved is logged, whatever came of it."""

from __future__ import annotations

import logging

import pytest

from runner.api.job_steps import LoggedStore
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Attempt, Failure, FailureClass
from tests.engine.fakes import FakeStore, job_in_memory

VIDEO = Asset(AssetKind.VIDEO, "assets/a.mp4", 7, "0" * 64, "video/mp4")


def test_what_is_saved_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An intent, a refusal, a download and a download that failed: each with its job, its task and what is known."""
    caplog.set_level(logging.DEBUG, "runner.jobs")
    store, failure = FakeStore(), Failure(FailureClass.DOWNLOAD_FAILED, "gone")
    logged = LoggedStore(store)

    logged.save(job_in_memory("a", State.SUBMITTING), Attempt(1, 5.0, "pending", key="k"))
    logged.save(job_in_memory("a", State.PENDING), Attempt(1, 5.0, "throttled", None, 429))
    logged.save(job_in_memory("a", State.SUCCEEDED, task_id="t", download_s=2.0), assets=[VIDEO])
    logged.save(job_in_memory("a", State.UNDELIVERED, task_id="t", error=failure))

    job, task = {"job_id": "a", "task_id": None}, {"job_id": "a", "task_id": "t"}
    attempt = {"attempt": 1, "model": "model-a"}
    file = {"path": "assets/a.mp4", "bytes": 7, "sha256": "0" * 64}
    assert [
        ("intent", {**job, **attempt, "key": "k"}),
        ("throttle", {**job, **attempt, "key": None, "outcome": "throttled", "http_status": 429}),
        ("downloaded", {**task, "seconds": 2.0, "files": [file]}),
        ("not_downloaded", {**task, "error_class": "download_failed", "message": "gone"}),
    ] == [(record.message, vars(record)["fields"]) for record in caplog.records]
    assert 4 == len(store.saved)
