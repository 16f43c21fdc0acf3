"""Queries of the store about many jobs."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, Job, JobRecord
from runner.store import query, work_list
from runner.store.rows import failure_text
from runner.store.store import Store
from runner.store.work_list import JobFilter
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


def test_removed_jobs_are_no_failures(store: Store) -> None:
    """Classes are those of the jobs that are counted: without what left the manifest."""
    sync_jobs(store, make_spec("a"), make_spec("b", 1))
    fail(store, FailureClass.LOST, "a", "b")
    sync_jobs(store, make_spec("b"))

    assert {"lost": 1} == query.class_counts(store.reader)
    assert ["b"] == [record.job_id for record in query.first_of_each_class(store.reader, ["lost"])]


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


def put(store: Store, job_id: str, state: State, **columns: object) -> None:
    """Bring a job to a state as if it had run."""
    values = {"state": state.value, **columns}
    with store.transaction() as connection:
        connection.execute(
            f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in values)} WHERE job_id = ?",
            (*values.values(), job_id),
        )


def test_jobs_in_doubt_count_though_they_left_the_manifest(store: Store) -> None:
    """A paid task may belong to them, so that they are not forgotten."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1)])
    put(store, "b", State.UNCERTAIN)
    sync_jobs(store, *[make_spec("a")])

    assert 1 == query.counts(store.reader, with_gone=False)[State.UNCERTAIN]


def test_what_is_left_to_submit(store: Store) -> None:
    """Pending jobs are counted and read by model, each model where its first job is, and as the filter allows."""
    models = ["slow", "quick", "slow", "quick", "slow"]
    sync_jobs(
        store, *(make_spec(f"{place}-{model}", place, model=model) for place, model in enumerate(models))
    )
    put(store, "0-slow", State.SUBMITTED)

    everything, odd = JobFilter(), JobFilter(glob="[!04]-*")
    assert [("quick", 2), ("slow", 2)] == list(work_list.pending_by_model(store.reader, everything).items())
    assert {"quick": 2, "slow": 1} == work_list.pending_by_model(store.reader, odd)

    def pending(scope: JobFilter, after: tuple[int, int] = (-1, -1), count: int = 9) -> list[str]:
        found = work_list.pending(
            store.reader, "slow", after=after, count=count, scope=scope, waiting_since=0.0
        )
        assert all(f'"prompt of {job.job_id}"'.encode() in text.encode() for job, text in found)
        return [job.job_id for job, _ in found]

    assert ["2-slow", "4-slow"] == pending(everything)
    assert ["2-slow"] == pending(odd) == pending(everything, count=1)
    assert ["4-slow"] == pending(everything, after=(2, 3))


def test_chosen_jobs_only(store: Store) -> None:
    """A rerun sees only what it has chosen, in whatever it asks."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1), make_spec("c", 2)])
    store.reader.execute("CREATE TEMP TABLE selected AS SELECT seq FROM jobs WHERE job_id != 'b'")
    scope = JobFilter(glob="[bc]", selected=True)

    assert {"wan2.7-i2v": 1} == work_list.pending_by_model(store.reader, scope)
    found = work_list.jobs_in_states(store.reader, [State.PENDING], waiting_since=7.0, scope=scope)
    assert [("c", 7.0)] == [(job.job_id, job.waiting_since) for job in found]


def test_jobs_in_some_states(store: Store) -> None:
    """Jobs are read in manifest order; of records, those that left it are the last."""
    sync_jobs(store, *[make_spec("gone"), *(make_spec(f"{n}", n) for n in range(1, 5))])
    sync_jobs(store, *[make_spec(f"{n}", n) for n in (4, 3, 2, 1)])
    for name in ("gone", "1", "3", "4"):
        put(store, name, State.UNCERTAIN if name != "3" else State.TIMED_OUT)
    states = {State.UNCERTAIN, State.TIMED_OUT}

    jobs = work_list.jobs_in_states(store.reader, states, waiting_since=0.0)
    assert ["gone", "1", "3", "4"] == [job.job_id for job in jobs]
    assert ["1", "3", "4", "gone"] == [record.job_id for record in query.records_in(store.reader, states)]
    assert ["3"] == [record.job_id for record in query.records_in(store.reader, {State.TIMED_OUT})]


def test_one_job_and_its_request(store: Store) -> None:
    """A job is found by its whole id, with the request that is its own."""
    sync_jobs(store, *[make_spec("a"), make_spec("ab", 1)])

    job = query.job(store.reader, "ab", waiting_since=3.0)
    assert job is not None
    assert ("ab", 1, 3.0, False) == (job.job_id, job.index, job.waiting_since, job.has_files)
    assert '"prompt of ab"' in query.request_text(store.reader, job.seq)
    assert query.job(store.reader, "b", waiting_since=0.0) is None


def test_rate_of_a_run(store: Store) -> None:
    """What began and what ended since a time, and the ends of the whole run."""
    sync_jobs(store, *[make_spec(name, place) for place, name in enumerate("abcd")])
    put(store, "a", State.SUCCEEDED, submitted_at=100.0, finished_at=150.0)
    put(store, "b", State.SUCCEEDED, submitted_at=120.0, finished_at=190.0)
    put(store, "c", State.SUBMITTED, submitted_at=160.0)
    put(store, "d", State.SUBMITTED, submitted_at=170.0)

    assert query.RunRate(2, 1, 100.0, 170.0, 190.0) == query.run_rate(store.reader, since_at=150.0)
    assert query.RunRate(0, 0, 100.0, 170.0, 190.0) == query.run_rate(store.reader, since_at=190.0)


def test_median_time_of_a_model(store: Store) -> None:
    """The middle one of its jobs that succeeded, the lower of two; none from too few."""
    sync_jobs(
        store, *[make_spec(f"{n}", n, model="slow") for n in range(6)] + [make_spec("x", 9, model="quick")]
    )
    for n, took_s in enumerate([50.0, 10.0, 40.0, 20.0]):
        put(store, f"{n}", State.SUCCEEDED, generate_s=took_s)
    put(store, "x", State.SUCCEEDED, generate_s=1.0)

    assert 20.0 == query.median_s(store.reader, "slow", at_least=4)
    assert query.median_s(store.reader, "slow", at_least=5) is None
    put(store, "4", State.SUCCEEDED, generate_s=60.0)
    assert 40.0 == query.median_s(store.reader, "slow", at_least=4)


def test_ids_that_begin_with_a_text(store: Store) -> None:
    """In the order of the alphabet, and no more than were asked for."""
    sync_jobs(
        store, *[make_spec(name, place) for place, name in enumerate(["cat-2", "dog", "cat", "cat-1", "ca"])]
    )

    assert ["cat", "cat-1", "cat-2"] == query.job_ids_with_prefix(store.reader, "cat", limit=9)
    assert ["cat", "cat-1"] == query.job_ids_with_prefix(store.reader, "cat", limit=2)


def test_job_ids_by_task(store: Store) -> None:
    """A task is its job's, also where only the history of the job names it."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1), make_spec("c", 2)])
    put(store, "a", State.SUBMITTED, task_id="task_now")
    put(store, "c", State.SUBMITTED, task_id="task_other")
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO attempts (seq, number, submitted_at, outcome, task_id) "
            "SELECT seq, 1, 0.0, 'accepted', 'task_then' FROM jobs WHERE job_id = 'b'"
        )

    assert {"task_now": "a", "task_then": "b"} == query.job_ids_by_task(
        store.reader, ["task_now", "task_then", "task_nobody"]
    )
