"""Queries of the store about many jobs."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, Job, JobRecord
from runner.store import query
from runner.store.rows import failure_text
from runner.store.store import Store
from tests.store.jobs import make_spec, sync_jobs


def fail(store: Store, cls: FailureClass, *job_ids: str) -> None:
    """Mark jobs as failed, with a failure class."""
    with store.transaction() as connection:
        connection.executemany(
            "UPDATE jobs SET state = 'failed', error_class = ? WHERE job_id = ?",
            [(cls.value, job_id) for job_id in job_ids],
        )


def test_counts(store: Store) -> None:
    """Every state is counted, with 0 for those without a job; removed jobs are counted only on request."""
    sync_jobs(store, make_spec("a"), make_spec("b", 1), make_spec("c", 2))
    fail(store, FailureClass.QUOTA, "b", "c")
    sync_jobs(store, make_spec("a"), make_spec("b", 1))

    zeros = dict.fromkeys(State, 0)
    assert {**zeros, State.PENDING: 1, State.FAILED: 2} == query.counts(store.reader)
    assert {**zeros, State.PENDING: 1, State.FAILED: 1} == query.counts(store.reader, with_gone=False)


def test_failures_by_class(store: Store) -> None:
    """Failures are counted by class, and the first of each in the manifest can be read."""
    sync_jobs(store, *(make_spec(name, place) for place, name in enumerate("dcba")))
    fail(store, FailureClass.MODERATION, "a", "c")
    fail(store, FailureClass.LOST, "b")

    assert {"lost": 1, "moderation": 2} == query.class_counts(store.reader)
    assert ["b", "c"] == [
        record.job_id for record in query.first_of_each_class(store.reader, ["lost", "moderation"])
    ]


def test_mean_durations(store: Store) -> None:
    """The mean duration of a model is over its jobs that succeeded; a model without any has none."""
    sync_jobs(store, make_spec("a"), make_spec("b", 1), make_spec("c", 2, model="other"), make_spec("d", 3))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET generate_s = 10.0 * idx + 60 WHERE job_id IN ('a', 'b')")

    assert {"wan2.7-i2v": 65.0} == query.mean_generate_s(store.reader)


def test_more_jobs_than_one_batch(store: Store) -> None:
    """Jobs are inserted and read in manifest order, whatever their number, each with its own request."""
    specs = [make_spec(f"job-{place}", place) for place in range(1234)]
    sync_jobs(store, *specs[600:])
    sync_jobs(store, *specs)

    found = list(query.records(store.reader))
    assert [spec.job_id for spec in specs] == [record.job_id for record in found]
    assert [spec.request for spec in specs] == [record.request for record in found]


def test_every_field_is_read_back(store: Store) -> None:
    """Each column of a job is read into its own field, of the record and of the engine's job."""
    spec = make_spec("a")._replace(metadata={"n": 1}, warnings=("first",), timeout_s=90.0)
    sync_jobs(store, spec)
    failure = Failure(FailureClass.LOST, "gone", "E1", 404, "req-1")
    with store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'failed', attempt = 2, task_id = 'task', other_task_id = 'other', "
            "remote_status = 'status', key = 'key', submitted_at = 1.0, completed_at = 2.0, finished_at = 3.0, "
            "generate_s = 4.0, download_s = 5.0, polls = 6, error = ?, warnings = ?, has_files = 1",
            (failure_text(failure), '["second"]'),
        )
    common: dict[str, Any] = {
        "job_id": "a",
        "index": 0,
        "model": spec.model,
        "state": State.FAILED,
        "task_id": "task",
        "remote_status": "status",
        "submitted_at": 1.0,
        "completed_at": 2.0,
        "finished_at": 3.0,
        "generate_s": 4.0,
        "download_s": 5.0,
        "polls": 6,
        "timeout_s": 90.0,
        "error": failure,
    }

    (record,) = query.records(store.reader)
    expected = JobRecord(
        schema=spec.schema,
        request=spec.request,
        digest=spec.digest,
        metadata={"n": 1},
        warnings=("first", "second"),
        source=spec.source,
        **common,
    )
    assert expected == record

    job = query.job(store.reader, "a", waiting_since=7.0)
    assert job is not None
    fields: dict[str, Any] = {
        "seq": 1,
        "attempt": 2,
        "other_task_id": "other",
        "key": "key",
        "warnings": ("second",),
        "has_files": True,
        "waiting_since": 7.0,
    }
    assert asdict(Job(**{**common, **fields})) == asdict(job)
