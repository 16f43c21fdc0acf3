"""How a manifest compares with the store, in a plan and in the messages of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner.core.lifecycle import State
from runner.core.model import Attempt, JobSpec, OnChanged
from runner.errors import JobsChanged
from runner.schema.wording import changed_fields
from runner.store import query
from runner.store.store import Store
from runner.store.sync import SyncReport, compare
from tests.store.jobs import make_spec, sync_jobs


def put(store: Store, state: State, *job_ids: str, attempt: int = 1) -> None:
    """Bring jobs to a state as if they had run."""
    with store.transaction() as connection:
        connection.executemany(
            "UPDATE jobs SET state = ?, attempt = ? WHERE job_id = ?",
            [(state.value, attempt, job_id) for job_id in job_ids],
        )


def picture(path: str) -> dict[str, object]:
    """Make a reference to a local file; its content is the same wherever it is."""
    return {"$file": path, "sha256": "1f", "media_type": "image/png", "bytes": 9}


def counts(report: SyncReport) -> tuple[int, ...]:
    """Read the counts of a report: new, same, replaced, changed, gone."""
    return (report.new, report.same, report.replaced, report.changed, report.gone)


def test_plan_says_of_each_job_what_a_run_would_do(store: Store) -> None:
    """New, changed and replaced jobs are called so, the others by their state; and what left is counted by state."""
    names = ["done", "left", "edited", "redone", "waits"]
    sync_jobs(store, *(make_spec(name, place) for place, name in enumerate(names)))
    put(store, State.SUCCEEDED, "done", "redone")
    put(store, State.TIMED_OUT, "left")
    before = list(query.records(store.reader))
    told: list[tuple[str, str, State | None]] = []
    gone: list[State] = []

    report = compare(
        store.reader,
        [
            make_spec("done"),
            make_spec("edited", seconds="8"),
            make_spec("redone", seconds="8"),
            make_spec("fresh"),
            make_spec("waits"),
        ],
        each=lambda spec, word, state: told.append((spec.job_id, word, state)),
        gone=gone.append,
    )

    assert [
        ("done", "same", State.SUCCEEDED),
        ("edited", "replaced", State.PENDING),
        ("redone", "changed", State.SUCCEEDED),
        ("fresh", "new", None),
        ("waits", "same", State.PENDING),
    ] == told
    assert ((1, 2, 1, 1, 1), 5, [State.TIMED_OUT]) == (counts(report), report.jobs, gone)
    assert ["redone (succeeded): seconds: '5' -> '8'"] == [str(change) for change in report.changes]
    assert before == list(query.records(store.reader))


def test_plan_of_a_large_manifest(store: Store) -> None:
    """Jobs are compared in batches; none is told twice, left out or taken for gone."""
    sync_jobs(store, *[make_spec(f"{n}", n) for n in range(1100)])
    told: list[str] = []

    report = compare(
        store.reader,
        (make_spec(f"{n}", n) for n in range(1, 1300)),
        each=lambda spec, word, state: told.append(word),
        gone=lambda state: told.append("gone"),
    )

    assert (200, 1099, 0, 0, 1) == counts(report)
    assert ["same"] * 1099 + ["new"] * 200 + ["gone"] == told


def test_plan_while_a_run_takes_jobs_in(store: Store) -> None:
    """A job that was added to the store meanwhile is the same as in the manifest, and nothing is gone."""
    sync_jobs(store, make_spec("a"))

    def specs() -> Iterator[JobSpec]:
        yield make_spec("a")
        sync_jobs(store, make_spec("a"), make_spec("b", 1))
        yield make_spec("b", 1)

    report = compare(store.reader, specs(), each=lambda spec, word, state: None, gone=lambda state: None)

    assert (0, 2, 0, 0, 0) == counts(report)


def test_sync_of_a_large_manifest(store: Store) -> None:
    """The same in a run."""
    sync_jobs(store, *[make_spec(f"{n}", n) for n in range(1100)])

    assert (200, 1099, 0, 0, 1) == counts(sync_jobs(store, *(make_spec(f"{n}", n) for n in range(1, 1300))))
    assert 1300 == len(list(query.records(store.reader)))


@pytest.mark.parametrize("outcome", ["accepted", "attached", "rejected", "uncertain"])
def test_job_whose_post_came_to_something_is_not_edited(outcome: str, store: Store) -> None:
    """A pending job with such an attempt behind it was submitted once, so that its request does not change by itself."""
    sync_jobs(store, *[make_spec("a")])
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO attempts (seq, number, submitted_at, outcome) VALUES (1, 1, 0.0, ?)", (outcome,)
        )

    with pytest.raises(JobsChanged, match="1 job changed"):
        sync_jobs(store, *[make_spec("a", seconds="8")])


@pytest.mark.parametrize("outcome", ["throttled", "not_sent", "no_channel", "refused"])
def test_job_whose_post_came_to_nothing_may_be_edited(outcome: str, store: Store) -> None:
    """It was never taken, so that nothing was paid for its old request."""
    sync_jobs(store, *[make_spec("a")])
    put(store, State.PENDING, "a", attempt=1)
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO attempts (seq, number, submitted_at, outcome) VALUES (1, 1, 0.0, ?)", (outcome,)
        )

    assert (0, 0, 1, 0, 0) == counts(sync_jobs(store, *[make_spec("a", seconds="8")]))


def test_many_changes_are_counted_and_the_first_are_shown(store: Store) -> None:
    """A message that lists ten thousand jobs helps nobody."""
    sync_jobs(store, *[make_spec(f"{n}", n) for n in range(12)])
    put(store, State.SUCCEEDED, *(f"{n}" for n in range(12)))

    with pytest.raises(JobsChanged) as caught:
        sync_jobs(store, *[make_spec(f"{n}", n, seconds="8") for n in range(12)])
    with pytest.raises(JobsChanged) as ten:
        sync_jobs(store, *[make_spec(f"{n}", n, seconds="8") for n in range(10)])

    assert caught.value.message.startswith("12 jobs changed ")
    assert caught.value.message.endswith("9 (succeeded): seconds: '5' -> '8'; and 2 more")
    assert ten.value.message.endswith("9 (succeeded): seconds: '5' -> '8'")


def test_jobs_that_can_not_be_replaced_are_shown(store: Store) -> None:
    """Those alone, although others change with them."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1), make_spec("c", 2)])
    put(store, State.SUCCEEDED, "a")
    put(store, State.UNCERTAIN, "b", "c")

    with pytest.raises(JobsChanged) as caught:
        sync_jobs(store, *[make_spec(name, seconds="8") for name in "abc"], on_changed=OnChanged.RERUN)

    assert caught.value.message.startswith("2 jobs changed ")
    assert caught.value.message.endswith(
        ": b (uncertain): seconds: '5' -> '8'; c (uncertain): seconds: '5' -> '8'"
    )


def test_job_that_is_replaced_is_all_new(store: Store) -> None:
    """Its request, model and place are the manifest's, and its old task's ids are gone."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1)])
    put(store, State.SUCCEEDED, "a", "b")
    with store.transaction() as connection:
        connection.execute("UPDATE jobs SET task_id = 'old', other_task_id = 'older'")

    changed = make_spec("a", 7, model="other", seconds="8", image=picture("a.png"))
    sync_jobs(store, *[changed, make_spec("b", 1)], on_changed=OnChanged.RERUN)

    job = query.job(store.reader, "a", waiting_since=0.0)
    assert job is not None
    assert (State.PENDING, 7, "other", True) == (job.state, job.index, job.model, job.has_files)
    assert (None, None) == (job.task_id, job.other_task_id)
    other = query.job(store.reader, "b", waiting_since=0.0)
    assert other is not None
    assert (State.SUCCEEDED, "old", "older") == (other.state, other.task_id, other.other_task_id)
    assert [changed.request, make_spec("b").request] == sorted(
        (record.request for record in query.records(store.reader)), key=lambda request: str(request["prompt"])
    )


def test_what_is_beside_the_request_follows_the_manifest(store: Store) -> None:
    """Where a job stands, what it is called and how long it may take change freely, of that job alone."""
    sync_jobs(store, *[make_spec("a"), make_spec("b", 1)])
    put(store, State.SUCCEEDED, "a", "b")

    moved = make_spec("a", 4)._replace(metadata={"scene": 3}, warnings=("odd",), timeout_s=60.0)
    assert (0, 2, 0, 0, 0) == counts(sync_jobs(store, *[moved, make_spec("b", 1)]))

    other, job = query.records(store.reader)
    assert ("a", 4, {"scene": 3}, ("odd",), 60.0) == (
        job.job_id,
        job.index,
        job.metadata,
        job.warnings,
        job.timeout_s,
    )
    assert (moved.source, State.SUCCEEDED) == (job.source, job.state)
    assert (1, {}, (), None, make_spec("b", 1).source) == (
        other.index,
        other.metadata,
        other.warnings,
        other.timeout_s,
        other.source,
    )


def test_same_content_under_another_path_is_noted(store: Store) -> None:
    """A picture that was moved is read from where it is now, though the job is the same."""
    old = make_spec("a", image=picture("old.png"))
    sync_jobs(store, *[old])
    moved = make_spec("a", image=picture("new.png"))._replace(digest=old.digest)

    assert (0, 1, 0, 0, 0) == counts(sync_jobs(store, *[moved]))
    assert picture("new.png") == next(query.records(store.reader)).request["image"]


def test_adopted_task_counts_from_when_it_was_taken_in(store: Store) -> None:
    """Nobody knows when it was submitted; one attempt stands for it."""
    sync_jobs(store, *[make_spec("a")._replace(task_id="task_1"), make_spec("b", 1)])

    job, other = (query.job(store.reader, name, waiting_since=0.0) for name in "ab")
    assert job is not None
    assert other is not None
    assert (1, 1000.0, "task_1") == (job.attempt, job.submitted_at, job.task_id)
    assert (Attempt(1, 1000.0, "attached", "task_1"),) == next(query.records(store.reader)).attempts
    assert (0, None, None) == (other.attempt, other.submitted_at, other.task_id)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "a": 2}, ("a: 1 -> 2", "b: 2 -> 3")),
        ({}, {"a": 0}, ("a: (absent) -> 0",)),
        ({"a": "x" * 38}, {"a": "y" * 39}, (f"a: '{'x' * 38}' -> '{'y' * 36}...",)),
        ({"a": 1}, {"a": 1}, ()),
    ],
)
def test_changed_fields_are_named_with_short_values(
    old: dict[str, object], new: dict[str, object], told: tuple[str, ...]
) -> None:
    """Each on its own, in the order of the alphabet; a long one is cut."""
    assert told == changed_fields(old, new)
