"""Jobs that name their task: polled again as often as one likes, and never submitted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import Attempt, Failure, FailureClass, JobSpec
from runner.store import query
from runner.store.store import Store
from runner.store.sync import OnChanged, sync
from runner.store.transitions import Selection, import_records, requeue_selected, select_for_rerun

Make = Callable[..., JobSpec]


def take_in(store: Store, *specs: JobSpec, on_changed: OnChanged = OnChanged.ERROR) -> None:
    """Sync in a transaction of its own."""
    with store.transaction() as connection:
        sync(connection, specs, on_changed=on_changed, at=1000.0)


def fail(store: Store) -> None:
    """Let every job's task have failed."""
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'failed', error_class = 'remote_failed'")


def rerun(store: Store) -> int:
    """Run again what failed, and say how many that are."""
    with store.transaction() as connection:
        select_for_rerun(connection, Selection())
        return requeue_selected(connection, at=2000.0)


def where(store: Store) -> tuple[State, str | None]:
    """Say where the one job is, and with which task."""
    (record,) = query.records(store.reader)
    return record.state, record.task_id


def test_rerun_polls_the_task_of_a_failed_job_that_names_one(store: Store, make_spec: Make) -> None:
    """
    A job with a task_id that failed is polled again by a rerun; it would be paid for if it were submitted.
    """
    take_in(store, make_spec("a")._replace(task_id="task_1"))
    fail(store)

    with store.transaction() as connection:
        plan = select_for_rerun(connection, Selection())
    assert (0, 1) == (plan.to_submit, plan.to_poll)
    assert 1 == rerun(store)

    assert (State.SUBMITTED, "task_1") == where(store)


def test_rerun_submits_a_job_whose_task_was_its_own(store: Store, make_spec: Make) -> None:
    """
    A job that was submitted by us and failed is pending again, without the old task's id.
    """
    take_in(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET task_id = 'task_old', attempt = 1")
    fail(store)

    rerun(store)

    assert (State.PENDING, None) == where(store)


def test_pending_job_that_names_its_task_is_not_among_those_to_submit(store: Store, make_spec: Make) -> None:
    """
    Whatever state such a job is found in, nothing hands it out to be submitted.
    """
    take_in(store, make_spec("a")._replace(task_id="task_1"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'pending'")

    found = query.pending(
        store.reader, "wan2.7-i2v", after=(-1, -1), count=9, scope=query.JobFilter(), waiting_since=0.0
    )

    assert [] == found


def test_same_manifest_again_leaves_a_failed_task_alone(store: Store, make_spec: Make) -> None:
    """
    Running the manifest again does not ask again for a task that has failed; another task's id does.
    """
    job = make_spec("a")._replace(task_id="task_1")
    take_in(store, job)
    fail(store)

    take_in(store, job)
    assert (State.FAILED, "task_1") == where(store)
    take_in(store, job._replace(task_id="task_2"))

    assert (State.SUBMITTED, "task_2") == where(store)


@pytest.mark.parametrize("state", ["succeeded", "failed", "timed_out", "undelivered"])
def test_changed_job_that_names_its_task_is_attached_and_not_submitted(
    state: str, store: Store, make_spec: Make
) -> None:
    """
    `--on-changed rerun` of a job with a task_id takes that task up, from whatever state.
    """
    take_in(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = ?, attempt = 1, task_id = 'task_old'", (state,))

    take_in(store, make_spec("a", seconds="8")._replace(task_id="task_1"), on_changed=OnChanged.RERUN)

    assert (State.SUBMITTED, "task_1") == where(store)


def test_task_that_is_attached_forgets_the_attempt_before(store: Store, make_spec: Make) -> None:
    """
    A job in doubt whose task is named in the manifest keeps nothing of its doubt.
    """
    take_in(store, make_spec("a"))
    with store.transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'uncertain', attempt = 1, other_task_id = 'x', error_class = 'uncertain_submit'"
        )

    take_in(store, make_spec("a")._replace(task_id="task_1"))

    (job,) = query.jobs_in_states(store.reader, [State.SUBMITTED], waiting_since=0.0)
    assert ("task_1", None, None) == (job.task_id, job.other_task_id, job.error)
    assert {} == query.class_counts(store.reader)


def test_attached_task_of_imported_results_is_never_submitted(store: Store, make_spec: Make) -> None:
    """
    On another machine too, a failed job that was given its task is polled again and not paid for.
    """
    take_in(store, make_spec("a"))
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
