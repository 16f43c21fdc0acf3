"""Moves between runs: what a crash, a person or a rerun changes of a job, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.core.model import Attempt, Failure, FailureClass, JobRecord
from runner.core.problem import Position
from runner.store import query, rows
from runner.store.store import Store
from runner.store.transitions import (
    RerunPlan,
    Selection,
    adopt_records,
    attach_task,
    import_records,
    mark_not_submitted,
    recover,
    requeue_selected,
    select_for_rerun,
    uncertain_ids,
    write_off,
)
from tests.results.records import succeeded
from tests.store.jobs import make_spec, sync_jobs

DOUBT = Failure(FailureClass.UNCERTAIN_SUBMIT, "no answer within 120 s")


def put(store: Store, job_id: str, state: State, error: FailureClass | None = None, **columns: Any) -> None:
    """Bring a job to a state as if it had run."""
    failure = None if error is None else rows.failure_text(Failure(error, "as the test wants it"))
    values = {"state": state.value, "error_class": error and error.value, "error": failure, **columns}
    with store.transaction() as connection:
        connection.execute(
            f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in values)} WHERE job_id = ?",
            (*values.values(), job_id),
        )


def add_attempt(store: Store, job_id: str, attempt: Attempt) -> None:
    """Let a job have made an attempt."""
    with store.transaction() as connection:
        (seq,) = connection.execute("SELECT seq FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        connection.execute(rows.SAVE_ATTEMPT, rows.attempt_row(seq, attempt))


def records(store: Store) -> dict[str, JobRecord]:
    """Read all jobs."""
    return {record.job_id: record for record in query.records(store.reader)}


def stored(store: Store, job_id: str, columns: str) -> tuple[Any, ...]:
    """Read columns of one job."""
    found: tuple[Any, ...] = store.reader.execute(
        f"SELECT {columns} FROM jobs WHERE job_id = ?", (job_id,)
    ).fetchone()
    return found


def in_doubt(store: Store, job_id: str, number: int = 1) -> None:
    """Let a job's POST have an unknown outcome."""
    put(
        store,
        job_id,
        State.UNCERTAIN,
        FailureClass.UNCERTAIN_SUBMIT,
        attempt=number,
        finished_at=950.0,
        polls=3,
    )
    add_attempt(store, job_id, Attempt(number, 900.0, "uncertain", error=DOUBT))


def test_only_jobs_between_intent_and_answer_are_put_in_doubt(store: Store) -> None:
    """
    After a crash the newest attempt of such a job has an unknown outcome, and nothing else changes.
    """
    sync_jobs(store, *(make_spec(f"{state.value}", index) for index, state in enumerate(State)))
    for state in State:
        put(store, state.value, state, attempt=2)
        add_attempt(store, state.value, Attempt(1, 800.0, "pending"))
        add_attempt(store, state.value, Attempt(2, 900.0, "pending"))
    before = records(store)

    with store.transaction() as connection:
        count = recover(connection, at=2000.0)
        again = recover(connection, at=3000.0)

    after = records(store)
    job = after.pop("submitting")
    del before["submitting"]
    assert (1, 0) == (count, again)
    assert before == after
    assert (State.UNCERTAIN, 2000.0) == (job.state, job.finished_at)
    assert job.error is not None
    assert FailureClass.UNCERTAIN_SUBMIT is job.error.cls
    assert [("pending", None), ("uncertain", job.error)] == [(a.outcome, a.error) for a in job.attempts]
    assert ("uncertain_submit",) == stored(store, "submitting", "error_class")


def test_task_of_a_doubtful_attempt_is_that_attempts_own(store: Store) -> None:
    """
    A job in doubt that is given its task continues with it, counted from when its POST left.
    """
    sync_jobs(store, make_spec("a"), make_spec("b", 1))
    in_doubt(store, "a", 2)

    with store.transaction() as connection:
        assert attach_task(connection, "a", "task_1", at=2000.0)

    job = records(store)["a"]
    assert (State.SUBMITTED, "task_1", 900.0) == (job.state, job.task_id, job.submitted_at)
    assert (Attempt(2, 900.0, "attached", "task_1"),) == job.attempts
    assert (None, None, 0) == (job.error, job.finished_at, job.polls)
    assert (2, None) == stored(store, "a", "attempt, error_class")
    assert State.PENDING is records(store)["b"].state


@pytest.mark.parametrize(("state", "number"), [(State.FAILED, 3), (State.PENDING, 3)])
def test_task_of_another_job_is_an_attempt_of_its_own(state: State, number: int, store: Store) -> None:
    """
    A task that is named for a job which has none begins its count now.
    """
    sync_jobs(store, make_spec("a"))
    put(store, "a", state, FailureClass.QUOTA, attempt=2)

    with store.transaction() as connection:
        assert attach_task(connection, "a", "task_1", at=2000.0)

    job = records(store)["a"]
    assert (Attempt(number, 2000.0, "attached", "task_1"),) == job.attempts
    assert (State.SUBMITTED, 2000.0) == (job.state, job.submitted_at)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.SUBMITTED, State.DOWNLOADING, State.SUCCEEDED])
def test_job_that_has_a_task_takes_no_other(state: State, store: Store) -> None:
    """
    What was paid for is not let go for another task; nor is there a job that the store does not have.
    """
    sync_jobs(store, make_spec("a"))
    put(store, "a", state, attempt=1, task_id="task_own")

    with store.transaction() as connection:
        assert not attach_task(connection, "a", "task_1", at=2000.0)
        assert not attach_task(connection, "b", "task_1", at=2000.0)

    assert (state, "task_own", ()) == (
        records(store)["a"].state,
        records(store)["a"].task_id,
        records(store)["a"].attempts,
    )


def test_job_that_surely_made_no_task_is_pending_again(store: Store) -> None:
    """
    A person's word ends the doubt, and nothing of it stays but the history.
    """
    sync_jobs(store, make_spec("a"), make_spec("b", 1))
    in_doubt(store, "a")
    in_doubt(store, "b")

    with store.transaction() as connection:
        assert mark_not_submitted(connection, "a")
        assert not mark_not_submitted(connection, "a")

    job = records(store)["a"]
    assert (State.PENDING, None, None) == (job.state, job.error, job.finished_at)
    assert (None,) == stored(store, "a", "error_class")
    assert ["uncertain"] == [attempt.outcome for attempt in job.attempts]
    assert State.UNCERTAIN is records(store)["b"].state


def test_job_that_is_written_off_fails_with_its_doubt(store: Store) -> None:
    """
    It keeps its class, so that no rerun submits it unless that class is named.
    """
    sync_jobs(store, make_spec("a"), make_spec("b", 1))
    in_doubt(store, "a")
    in_doubt(store, "b")

    with store.transaction() as connection:
        assert write_off(connection, "a")
        assert not write_off(connection, "a")
        plan = select_for_rerun(connection, Selection())

    assert (State.FAILED, State.UNCERTAIN) == (records(store)["a"].state, records(store)["b"].state)
    assert ("uncertain_submit",) == stored(store, "a", "error_class")
    assert RerunPlan(left_alone={"uncertain_submit": 2}, given_up=1) == plan


def test_jobs_in_doubt_are_found_by_globs(store: Store) -> None:
    """
    Any of the globs will do, in the order of the manifest; jobs that are not in doubt are none of them.
    """
    sync_jobs(
        store, make_spec("cat-2", 0), make_spec("dog-1", 1), make_spec("cat-1", 2), make_spec("cat-3", 3)
    )
    for name in ("cat-1", "cat-2", "dog-1"):
        in_doubt(store, name)

    assert ["cat-2", "cat-1"] == uncertain_ids(store.reader, ["cat-*"])
    assert ["cat-2", "dog-1", "cat-1"] == uncertain_ids(store.reader, ["cat-?", "dog-1"])
    assert ["dog-1"] == uncertain_ids(store.reader, ["[!c]*"])


RERUN_OF_EVERYTHING = {
    "pending": State.PENDING,
    "submitted": State.SUBMITTED,
    "downloading": State.DOWNLOADING,
    "timed_out": State.TIMED_OUT,
    "undelivered": State.UNDELIVERED,
    "quota": State.FAILED,
}


@pytest.fixture
def of_all_kinds(store: Store) -> Store:
    """Take in a job of each state, named by it, and failed ones, named by their class."""
    classes = [FailureClass.QUOTA, FailureClass.LOST, FailureClass.MODERATION, FailureClass.INVALID_REQUEST]
    states = [state for state in State if state is not State.FAILED]
    names = [state.value for state in states] + [cls.value for cls in classes]
    sync_jobs(store, *(make_spec(name, index) for index, name in enumerate(names)))
    for state in states:
        put(store, state.value, state)
    for cls in classes:
        put(store, cls.value, State.FAILED, cls, task_id="old", other_task_id="older")
    return store


def selected(store: Store, selection: Selection) -> tuple[set[str], RerunPlan]:
    """Select jobs, and name them."""
    with store.transaction() as connection:
        plan = select_for_rerun(connection, selection)
        found = connection.execute("SELECT job_id FROM jobs WHERE seq IN (SELECT seq FROM selected)")
        return {job_id for (job_id,) in found}, plan


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), {*RERUN_OF_EVERYTHING, "lost"}),
        (Selection(states=frozenset({State.FAILED})), {"quota", "lost"}),
        (Selection(states=frozenset({State.TIMED_OUT, State.UNDELIVERED})), {"timed_out", "undelivered"}),
        (Selection(states=frozenset({State.SUCCEEDED, State.UNCERTAIN})), set()),
        (Selection(classes=frozenset({FailureClass.LOST, FailureClass.QUOTA})), {"lost", "quota"}),
        (Selection(glob="*[!g]ed"), {"submitted", "undelivered"}),
        (Selection(frozenset({State.FAILED}), frozenset({FailureClass.MODERATION}), "mod*"), {"moderation"}),
        (Selection(frozenset({State.FAILED}), frozenset({FailureClass.MODERATION}), "q*"), set()),
    ],
)
def test_rerun_takes_up_what_meets_every_condition(
    selection: Selection, names: set[str], of_all_kinds: Store
) -> None:
    """
    States that a run continues with, and failed jobs but for those that are left alone unless their class is
    named; a lost job's task is polled once more in any case.
    """
    assert names == selected(of_all_kinds, selection)[0]


def test_rerun_says_what_it_does_and_leaves(of_all_kinds: Store) -> None:
    """
    Each selected job is counted by its next step, each that rests without being selected by its class.
    """
    _, plan = selected(of_all_kinds, Selection())

    assert (2, 2, 2) == (plan.to_submit, plan.to_poll, plan.to_download)
    assert {"invalid_request": 1, "lost": 1, "moderation": 1, "uncertain": 1} == plan.left_alone


def test_second_selection_replaces_the_first(of_all_kinds: Store) -> None:
    """
    A process that selects twice runs the second choice.
    """
    selected(of_all_kinds, Selection())

    assert {"quota", "lost"} == selected(of_all_kinds, Selection(states=frozenset({State.FAILED})))[0]


@pytest.mark.parametrize(
    ("state", "is_selected"), [(State.PENDING, 0), (State.FAILED, 0), (State.TIMED_OUT, 1)]
)
def test_job_that_left_the_manifest_is_not_submitted_by_a_rerun(
    state: State, is_selected: int, store: Store
) -> None:
    """
    What it has paid for is still polled and fetched.
    """
    sync_jobs(store, make_spec("a"), make_spec("b", 1))
    sync_jobs(store, make_spec("b"))
    put(store, "a", state, FailureClass.QUOTA)
    put(store, "b", State.SUCCEEDED)

    assert is_selected == len(selected(store, Selection())[0])


def test_only_selected_failed_jobs_become_pending(of_all_kinds: Store) -> None:
    """
    The old task's ids go, so that nothing polls them for the new attempt; jobs with a task continue with it.
    """
    with of_all_kinds.transaction() as connection:
        select_for_rerun(connection, Selection())
        count = requeue_selected(connection, at=2000.0)

    after = records(of_all_kinds)
    expected = {**RERUN_OF_EVERYTHING, "quota": State.PENDING, "lost": State.FAILED}
    assert 1 == count
    assert expected == {name: after[name].state for name in expected}
    assert (None, None) == stored(of_all_kinds, "quota", "task_id, other_task_id")
    assert ("old", "older") == stored(of_all_kinds, "lost", "task_id, other_task_id")


def test_selected_jobs_with_a_task_of_their_own_are_counted_too(store: Store) -> None:
    """
    A job that names its task is polled again, others are submitted again: both are told.
    """
    sync_jobs(store, make_spec("a")._replace(task_id="task_1"), make_spec("b", 1), make_spec("c", 2))
    for name in "abc":
        put(store, name, State.FAILED, FailureClass.QUOTA)

    with store.transaction() as connection:
        select_for_rerun(connection, Selection())
        assert 3 == requeue_selected(connection, at=2000.0)


def test_imported_job_is_as_the_results_knew_it(store: Store) -> None:
    """
    Everything that a rerun decides by, and its history, comes along; a job that is there already stays.
    """
    sync_jobs(store, make_spec("a"))
    lost = Failure(FailureClass.LOST, "nobody knows it", "E1", 404, "req-1")
    attempts = (Attempt(1, 700.0, "rejected", error=lost), Attempt(3, 800.0, "accepted", "task_3"))
    record = JobRecord(
        "b", 7, "wan2.7-i2v", "wan2.7-i2v", {"prompt": "hi"}, "digest", {"k": 1}, State.FAILED,
        timeout_s=60.0, task_id="task_3", remote_status="failed", submitted_at=800.0, finished_at=850.0,
        polls=4, attempts=attempts, warnings=("one",), error=lost, source=Position("old.yaml", 3, 5),
    )  # fmt: skip

    with store.transaction() as connection:
        mine = records(store)["a"]
        count = import_records(connection, [mine, record], at=1000.0)

    after = records(store)
    assert 1 == count
    assert record == after["b"]
    assert mine == after["a"]
    assert (3, "lost", 0) == stored(store, "b", "attempt, error_class, has_files")


@pytest.mark.parametrize(("task_id", "submitted_at"), [("task_1", 1000.0), (None, None)])
def test_imported_task_of_unknown_age_counts_from_its_import(
    task_id: str | None, submitted_at: float | None, store: Store
) -> None:
    """
    Results of other programs may not say when a task was submitted; without a task there is nothing to count.
    """
    record = JobRecord("b", 0, "m", "none", {"prompt": "hi"}, "digest", {}, State.TIMED_OUT, task_id=task_id)

    with store.transaction() as connection:
        import_records(connection, [record], at=1000.0)

    after = records(store)["b"]
    assert (submitted_at, ()) == (after.submitted_at, after.attempts)
    assert (0, None) == stored(store, "b", "attempt, warnings")
    # Else a task of theirs that was lost would not be asked for again.
    assert (task_id is not None) is query.has_attempts(store.reader)


def test_results_are_taken_over_by_their_own_job(store: Store) -> None:
    """A job of the store gets what its line knows, one that it lacks is inserted, and the others stay as they are."""
    sync_jobs(store, make_spec("a"), make_spec("b", 1), make_spec("c", 2))
    add_attempt(store, "a", Attempt(3, 5.0, "accepted", "task_a"))

    with store.transaction() as connection:
        lines = [succeeded("b"), succeeded("b"), succeeded("new", task_id="task_new")]
        assert 2 == adopt_records(connection, lines, at=1000.0)

    found = records(store)
    assert {"a": State.PENDING, "b": State.SUCCEEDED, "c": State.PENDING, "new": State.SUCCEEDED} == {
        job_id: record.state for job_id, record in found.items()
    }
    assert ("task_x", succeeded().assets) == (found["b"].task_id, found["b"].assets)
