"""Syncing the store with the jobs of a manifest."""

from __future__ import annotations

import pytest

from runner.core.lifecycle import State
from runner.core.model import Attempt, OnChanged
from runner.errors import JobsChanged
from runner.store import query, rows, work_list
from runner.store.store import Store
from runner.store.work_list import JobFilter
from tests.store.jobs import make_spec, sync_jobs


def set_state(store: Store, job_id: str, state: State, attempt: int = 1) -> None:
    """Set the state of a job as if it had run."""
    with store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = ?, attempt = ? WHERE job_id = ?", (state, attempt, job_id)
        )


def test_new_jobs_become_pending(store: Store) -> None:
    """
    Every job of a new manifest is pending, in manifest order.
    """
    report = sync_jobs(store, make_spec("b", 0), make_spec("a", 1))

    assert (2, 0) == (report.new, report.same)
    assert ["b", "a"] == [record.job_id for record in query.records(store.reader)]
    assert {State.PENDING} == {record.state for record in query.records(store.reader)}


def test_same_manifest_again_changes_nothing(store: Store) -> None:
    """
    The same jobs again, in another order and among new ones, are the same jobs.
    """
    sync_jobs(store, make_spec("a", 0), make_spec("b", 1))
    set_state(store, "a", State.SUCCEEDED)

    report = sync_jobs(store, make_spec("b", 0), make_spec("new", 1), make_spec("a", 2))

    assert (1, 2, 0, 0) == (report.new, report.same, report.changed, report.gone)
    found = [(record.job_id, record.state) for record in query.records(store.reader)]
    assert [("b", State.PENDING), ("new", State.PENDING), ("a", State.SUCCEEDED)] == found


def test_changed_job_is_an_error_that_says_what_changed(store: Store) -> None:
    """
    The same id with another request is refused once it ran, and the store remains as it was.
    """
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", State.SUCCEEDED)

    with pytest.raises(JobsChanged) as caught:
        sync_jobs(store, make_spec("a", seconds="8"), make_spec("b", 1))

    assert "a (succeeded): seconds: '5' -> '8'" in caught.value.message
    assert ["a"] == [record.job_id for record in query.records(store.reader)]


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED])
def test_changed_job_that_was_never_sent_gets_the_new_request(store: Store, state: State) -> None:
    """
    A job that was never submitted may be edited: nothing was paid for it. It may have failed because it was invalid.
    """
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", state, attempt=0)

    report = sync_jobs(store, make_spec("a", seconds="8"))

    record = next(query.records(store.reader))
    assert (0, 1) == (report.changed, report.replaced)
    assert ("8", State.PENDING) == (record.request["seconds"], record.state)


def test_changed_job_that_failed_remotely_is_no_new_one(store: Store) -> None:
    """A job that was submitted, and failed, may have been paid for: the user says what a changed request means."""
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", State.FAILED)
    with store.transaction() as connection:
        connection.execute(rows.SAVE_ATTEMPT, rows.attempt_row(1, Attempt(1, 0.0, "accepted", "task_a")))

    with pytest.raises(JobsChanged):
        sync_jobs(store, make_spec("a", seconds="8"))


def test_keep_leaves_a_changed_job_as_it_ran(store: Store) -> None:
    """
    With keep, the old request and its result remain.
    """
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", State.SUCCEEDED)

    sync_jobs(store, make_spec("a", seconds="8"), on_changed=OnChanged.KEEP)

    record = next(query.records(store.reader))
    assert ("5", State.SUCCEEDED) == (record.request["seconds"], record.state)


def test_rerun_makes_a_changed_job_pending(store: Store) -> None:
    """
    With rerun, a job that has ended is submitted with its new request.
    """
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", State.SUCCEEDED)

    sync_jobs(store, make_spec("a", seconds="8"), on_changed=OnChanged.RERUN)

    record = next(query.records(store.reader))
    assert ("8", State.PENDING) == (record.request["seconds"], record.state)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.SUBMITTED, State.DOWNLOADING, State.UNCERTAIN])
def test_rerun_never_replaces_a_job_whose_task_may_exist(store: Store, state: State) -> None:
    """
    A job that is in progress or uncertain can't be replaced: that could pay twice.
    """
    sync_jobs(store, make_spec("a"))
    set_state(store, "a", state)

    with pytest.raises(JobsChanged, match="although a task for the old request may exist"):
        sync_jobs(store, make_spec("a", seconds="8"), on_changed=OnChanged.RERUN)


def test_job_that_was_removed_is_gone_and_not_submitted(store: Store) -> None:
    """
    A removed job remains in the store, is reported, and is not submitted; it may be added again.
    """
    sync_jobs(store, make_spec("a", 0), make_spec("b", 1))

    report = sync_jobs(store, make_spec("b", 0))

    assert 1 == report.gone
    assert {"wan2.7-i2v": 1} == work_list.pending_by_model(store.reader, JobFilter())
    assert [("b", False), ("a", True)] == [(r.job_id, r.is_gone) for r in query.records(store.reader)]
    sync_jobs(store, make_spec("b", 0), make_spec("a", 1))
    assert {"wan2.7-i2v": 2} == work_list.pending_by_model(store.reader, JobFilter())


def test_named_task_is_polled_and_never_submitted(store: Store) -> None:
    """
    A job whose task the manifest names starts as submitted, with an attempt that says so.
    """
    with_task = make_spec("a")._replace(task_id="task_1")

    sync_jobs(store, with_task)

    record = next(query.records(store.reader))
    assert (State.SUBMITTED, "task_1") == (record.state, record.task_id)
    assert ["attached"] == [attempt.outcome for attempt in record.attempts]
