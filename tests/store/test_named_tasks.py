"""Jobs whose task the manifest names: they may be polled again at any time, and are never submitted."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, Failure, FailureClass, OnChanged
from runner.errors import UsageError
from runner.store import query, work_list
from runner.store.store import Store
from runner.store.transitions import Selection, import_records, requeue_selected, select_for_rerun
from runner.store.work_list import JobFilter
from tests.store.jobs import make_spec, sync_jobs


def fail(store: Store) -> None:
    """Mark every job as failed, because its task failed."""
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'failed', error_class = 'remote_failed'")


def rerun(store: Store) -> int:
    """Rerun what failed, and return how many jobs that are."""
    with store.transaction() as connection:
        select_for_rerun(connection, Selection())
        return requeue_selected(connection, at=2000.0)


def state_and_task(store: Store) -> tuple[State, str | None]:
    """Return state and task of the only job."""
    (record,) = query.records(store.reader)
    return record.state, record.task_id


def test_rerun_polls_the_task_of_a_failed_job_that_names_one(store: Store) -> None:
    """
    A rerun polls a failed job with a task_id again; submitting it would cost money.
    """
    sync_jobs(store, make_spec("a")._replace(task_id="task_1"))
    fail(store)

    with store.transaction() as connection:
        plan = select_for_rerun(connection, Selection())
    assert (0, 1) == (plan.to_submit, plan.to_poll)
    assert 1 == rerun(store)

    assert (State.SUBMITTED, "task_1") == state_and_task(store)


def test_rerun_submits_a_failed_job_again(store: Store) -> None:
    """
    A job that this run submitted and that failed becomes pending, without the old task's id.
    """
    sync_jobs(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET task_id = 'task_old', attempt = 1")
    fail(store)

    rerun(store)

    assert (State.PENDING, None) == state_and_task(store)


def test_pending_job_that_names_its_task_is_not_among_those_to_submit(store: Store) -> None:
    """
    Whatever state such a job is in, no query returns it for submission.
    """
    sync_jobs(store, make_spec("a")._replace(task_id="task_1"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'pending'")

    pending = work_list.pending(
        store.reader, "wan2.7-i2v", after=(-1, -1), count=9, scope=JobFilter(), waiting_since=0.0
    )

    assert [] == pending


def test_same_manifest_again_leaves_a_failed_task_alone(store: Store) -> None:
    """
    With the same manifest a task that has failed is not polled again; with another task's id it is.
    """
    job = make_spec("a")._replace(task_id="task_1")
    sync_jobs(store, job)
    fail(store)

    sync_jobs(store, job)
    assert (State.FAILED, "task_1") == state_and_task(store)
    sync_jobs(store, job._replace(task_id="task_2"))

    assert (State.SUBMITTED, "task_2") == state_and_task(store)


@pytest.mark.parametrize("state", ["succeeded", "failed", "timed_out", "undelivered"])
def test_changed_job_that_names_its_task_is_attached_and_not_submitted(state: str, store: Store) -> None:
    """
    `--on-changed rerun` of a job with a task_id attaches that task, whatever the job's state.
    """
    sync_jobs(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = ?, attempt = 1, task_id = 'task_old'", (state,))

    sync_jobs(store, make_spec("a", seconds="8")._replace(task_id="task_1"), on_changed=OnChanged.RERUN)

    assert (State.SUBMITTED, "task_1") == state_and_task(store)


def test_attached_task_clears_what_was_uncertain(store: Store) -> None:
    """
    An uncertain job whose task is named in the manifest has no error and no other task any more.
    """
    sync_jobs(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'uncertain', attempt = 1, other_task_id = 'x', error_class = 'uncertain_submit'"
        )

    sync_jobs(store, make_spec("a")._replace(task_id="task_1"))

    (job,) = work_list.jobs_in_states(store.reader, [State.SUBMITTED], waiting_since=0.0)
    assert ("task_1", None, None) == (job.task_id, job.other_task_id, job.error)
    assert {} == query.class_counts(store.reader)


def test_attached_task_of_imported_results_is_never_submitted(store: Store) -> None:
    """
    On another machine too, a failed job whose task was named is polled again and not paid for.
    """
    sync_jobs(store, make_spec("a"))
    (record,) = query.records(store.reader)
    failed = replace(
        record,
        job_id="b",
        index=1,
        state=State.FAILED,
        task_id="task_1",
        attempts=(Attempt(1, 900.0, "attached", "task_1"),),
        error=Failure(FailureClass.REMOTE_FAILED, "it failed"),
    )

    with store.transaction() as connection:
        import_records(connection, [failed], at=1000.0)
    rerun(store)

    states = {record.job_id: record.state for record in query.records(store.reader)}
    assert {"a": State.PENDING, "b": State.SUBMITTED} == states


def test_manifest_names_a_task_of_another_job(store: Store) -> None:
    """
    A job can't have the task that another job of the run has, or had: nothing of the manifest is taken in.
    """
    sync_jobs(store, make_spec("a")._replace(task_id="task_1"))

    for changed in (make_spec("a"), make_spec("c")):
        with pytest.raises(UsageError, match="'b' can't have the task task_1: it belongs to 'a'"):
            sync_jobs(store, changed, make_spec("b", 1)._replace(task_id="task_1"))

    assert ["a"] == [record.job_id for record in query.records(store.reader)]
