"""A manifest's jobs against those that the store has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runner.core.lifecycle import State
from runner.core.model import JobSpec
from runner.errors import JobsChanged
from runner.store import query
from runner.store.store import Store
from runner.store.sync import OnChanged, SyncReport, sync

Make = Callable[..., JobSpec]


def take_in(store: Store, specs: list[JobSpec], on_changed: OnChanged = OnChanged.ERROR) -> SyncReport:
    """Sync in a transaction of its own."""
    with store.transaction() as connection:
        return sync(connection, specs, on_changed=on_changed, at=1000.0)


def put(store: Store, job_id: str, state: State, attempt: int = 1) -> None:
    """Bring a job to a state as if it had run."""
    with store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = ?, attempt = ? WHERE job_id = ?", (state, attempt, job_id)
        )


def test_new_jobs_become_pending(store: Store, make_spec: Make) -> None:
    """
    Every job of a new manifest waits to be submitted, in manifest order.
    """
    report = take_in(store, [make_spec("b", 0), make_spec("a", 1)])

    assert (2, 0) == (report.new, report.same)
    assert ["b", "a"] == [record.job_id for record in query.records(store.reader)]
    assert {State.PENDING} == {record.state for record in query.records(store.reader)}


def test_same_manifest_again_changes_nothing(store: Store, make_spec: Make) -> None:
    """
    The same jobs again, in another order and among new ones, are the same jobs.
    """
    take_in(store, [make_spec("a", 0), make_spec("b", 1)])
    put(store, "a", State.SUCCEEDED)

    report = take_in(store, [make_spec("b", 0), make_spec("new", 1), make_spec("a", 2)])

    assert (1, 2, 0, 0) == (report.new, report.same, report.changed, report.gone)
    found = [(record.job_id, record.state) for record in query.records(store.reader)]
    assert [("b", State.PENDING), ("new", State.PENDING), ("a", State.SUCCEEDED)] == found


def test_changed_job_is_an_error_that_says_what_changed(store: Store, make_spec: Make) -> None:
    """
    The same id with another request is refused once it ran, and the store stays as it was.
    """
    take_in(store, [make_spec("a")])
    put(store, "a", State.SUCCEEDED)

    with pytest.raises(JobsChanged) as caught:
        take_in(store, [make_spec("a", seconds="8"), make_spec("b", 1)])

    assert "a (succeeded): seconds: '5' -> '8'" in caught.value.message
    assert ["a"] == [record.job_id for record in query.records(store.reader)]


def test_changed_job_that_never_left_takes_the_new_request(store: Store, make_spec: Make) -> None:
    """
    A job that was never submitted may be edited freely: nothing was paid.
    """
    take_in(store, [make_spec("a")])

    report = take_in(store, [make_spec("a", seconds="8")])

    assert (0, 1) == (report.changed, report.replaced)
    assert "8" == next(query.records(store.reader)).request["seconds"]


def test_keep_leaves_a_changed_job_as_it_ran(store: Store, make_spec: Make) -> None:
    """
    With keep, the old request and its result stay.
    """
    take_in(store, [make_spec("a")])
    put(store, "a", State.SUCCEEDED)

    take_in(store, [make_spec("a", seconds="8")], OnChanged.KEEP)

    record = next(query.records(store.reader))
    assert ("5", State.SUCCEEDED) == (record.request["seconds"], record.state)


def test_rerun_makes_a_changed_job_pending(store: Store, make_spec: Make) -> None:
    """
    With rerun, a job that is at rest is to be submitted with its new request.
    """
    take_in(store, [make_spec("a")])
    put(store, "a", State.SUCCEEDED)

    take_in(store, [make_spec("a", seconds="8")], OnChanged.RERUN)

    record = next(query.records(store.reader))
    assert ("8", State.PENDING) == (record.request["seconds"], record.state)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.SUBMITTED, State.DOWNLOADING, State.UNCERTAIN])
def test_rerun_never_replaces_a_job_whose_task_may_exist(store: Store, make_spec: Make, state: State) -> None:
    """
    A job that is under way or in doubt can't be replaced: that could pay twice.
    """
    take_in(store, [make_spec("a")])
    put(store, "a", state)

    with pytest.raises(JobsChanged, match="while a task for it may exist"):
        take_in(store, [make_spec("a", seconds="8")], OnChanged.RERUN)


def test_job_that_left_the_manifest_is_gone_and_not_submitted(store: Store, make_spec: Make) -> None:
    """
    A job that left stays in the store, is reported, and is not among those to submit; it may come back.
    """
    take_in(store, [make_spec("a", 0), make_spec("b", 1)])

    report = take_in(store, [make_spec("b", 0)])

    assert 1 == report.gone
    assert {"wan2.7-i2v": 1} == query.pending_by_model(store.reader, query.JobFilter())
    assert [("b", False), ("a", True)] == [(r.job_id, r.is_gone) for r in query.records(store.reader)]
    take_in(store, [make_spec("b", 0), make_spec("a", 1)])
    assert {"wan2.7-i2v": 2} == query.pending_by_model(store.reader, query.JobFilter())


def test_named_task_is_polled_and_never_submitted(store: Store, make_spec: Make) -> None:
    """
    A job that names its task starts as submitted, with the adoption in its history.
    """
    adopted = make_spec("a")._replace(task_id="task_1")

    take_in(store, [adopted])

    record = next(query.records(store.reader))
    assert (State.SUBMITTED, "task_1") == (record.state, record.task_id)
    assert ["attached"] == [attempt.outcome for attempt in record.attempts]
