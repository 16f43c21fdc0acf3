"""What the store answers about all jobs at once."""

from __future__ import annotations

from collections.abc import Callable

from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobSpec
from runner.store import query
from runner.store.store import Store
from runner.store.sync import OnChanged, sync

Make = Callable[..., JobSpec]


def take_in(store: Store, specs: list[JobSpec]) -> None:
    """Sync in a transaction of its own."""
    with store.transaction() as connection:
        sync(connection, specs, on_changed=OnChanged.ERROR, at=1000.0)


def fail(store: Store, cls: FailureClass, *job_ids: str) -> None:
    """Let jobs have failed for a reason."""
    with store.transaction() as connection:
        connection.executemany(
            "UPDATE jobs SET state = 'failed', error_class = ? WHERE job_id = ?",
            [(cls.value, job_id) for job_id in job_ids],
        )


def test_counts(store: Store, make_spec: Make) -> None:
    """Every state is counted, those without a job as 0; jobs that left the manifest only where they are asked for."""
    take_in(store, [make_spec("a"), make_spec("b", 1), make_spec("c", 2)])
    fail(store, FailureClass.QUOTA, "b", "c")
    take_in(store, [make_spec("a"), make_spec("b", 1)])

    nothing = dict.fromkeys(State, 0)
    assert {**nothing, State.PENDING: 1, State.FAILED: 2} == query.counts(store.reader)
    assert {**nothing, State.PENDING: 1, State.FAILED: 1} == query.counts(store.reader, with_gone=False)


def test_failures_by_class(store: Store, make_spec: Make) -> None:
    """Failures are counted by class, and the first of each in the manifest stands for them."""
    take_in(store, [make_spec(name, place) for place, name in enumerate("dcba")])
    fail(store, FailureClass.MODERATION, "a", "c")
    fail(store, FailureClass.LOST, "b")

    assert {"lost": 1, "moderation": 2} == query.class_counts(store.reader)
    assert ["b", "c"] == [
        record.job_id for record in query.first_of_each_class(store.reader, ["lost", "moderation"])
    ]


def test_usual_times(store: Store, make_spec: Make) -> None:
    """The usual time of a model is the mean of its jobs that succeeded, and a model without any has none."""
    take_in(store, [make_spec("a"), make_spec("b", 1), make_spec("c", 2, model="other"), make_spec("d", 3)])
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET generate_s = 10.0 * idx + 60 WHERE job_id IN ('a', 'b')")

    assert {"wan2.7-i2v": 65.0} == query.mean_generate_s(store.reader)


def test_more_jobs_than_one_reading_takes(store: Store, make_spec: Make) -> None:
    """Jobs are taken in and read back in manifest order, whatever their number, each with what was asked for."""
    specs = [make_spec(f"job-{place}", place) for place in range(1234)]
    take_in(store, specs[600:])
    take_in(store, specs)

    found = list(query.records(store.reader))
    assert [spec.job_id for spec in specs] == [record.job_id for record in found]
    assert [spec.request for spec in specs] == [record.request for record in found]
