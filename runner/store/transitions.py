"""
Transitions of many jobs at once, between runs: crash recovery, reruns, manual resolution, imports.

Each function works in the open transaction of its caller, and follows the transition table like everything else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from runner.core.estimate import CostEstimate
from runner.core.lifecycle import Event, State, Step, advance, next_step, recovery, sources
from runner.core.model import NEVER_RESUBMITTED, Attempt, Failure, FailureClass, Job, JobRecord, has_files
from runner.store import costs, rows
from runner.store.freshness import PAID
from runner.store.work_list import LOST_WITH_TASK, sql_glob


class Selection(Struct, frozen=True):
    """
    Which jobs to rerun: those that meet every given condition.

    Attributes:
        states: By state; empty for any.
        classes: By failure class; empty for any except `NEVER_RESUBMITTED`.
        glob: By id, as the shell matches file names; None for any.
        ids: By id; None for any.
    """

    states: frozenset[State] = frozenset()
    classes: frozenset[FailureClass] = frozenset()
    glob: str | None = None
    ids: tuple[str, ...] | None = None


def recover(connection: sqlite3.Connection, *, at: float) -> int:
    """Mark every job as uncertain that a dead process left between intent and answer; return how many."""
    failure = Failure(
        FailureClass.UNCERTAIN_SUBMIT, "the process ended between sending the job and recording the answer"
    )
    text = rows.failure_text(failure)
    count = 0
    for state, event in [(state, event) for state in State if (event := recovery(state)) is not None]:
        costs.mark_recovered(connection, state)
        connection.execute(
            "UPDATE attempts SET outcome = 'uncertain', error = ? WHERE outcome = 'pending' "
            "AND (seq, number) IN (SELECT seq, attempt FROM jobs WHERE state = ?)",
            (text, state.value),
        )
        count += connection.execute(
            "UPDATE jobs SET state = ?, error = ?, error_class = ?, finished_at = ? WHERE state = ?",
            (advance(state, event).value, text, failure.cls.value, at, state.value),
        ).rowcount
    return count


class RerunPlan(Struct):
    """
    What a rerun does: counts of jobs, and those that it leaves alone, by class.

    Attributes:
        given_up: How many of those that it leaves alone were uncertain, until a person wrote them off.
        cost: Of those that it submits, if it was asked for.
    """

    to_submit: int = 0
    to_poll: int = 0
    to_download: int = 0
    left_alone: Mapping[str, int] = field(default_factory=dict)
    given_up: int = 0
    cost: CostEstimate | None = None


def select_for_rerun(connection: sqlite3.Connection, selection: Selection) -> RerunPlan:
    """
    Write the jobs of a rerun to the temporary table ``selected``, and count them.

    Jobs that were removed from the manifest are never submitted, but what was paid for is still polled and
    downloaded.
    """
    connection.execute("DROP TABLE IF EXISTS temp.selected")
    connection.execute("CREATE TEMP TABLE selected (seq INTEGER PRIMARY KEY)")
    where, values = _conditions(selection)
    listed = _listed(states := rerunnable_states())
    connection.execute(f"INSERT INTO selected SELECT seq FROM jobs WHERE state IN ({listed}) {where}", values)
    plan = RerunPlan(left_alone=_deselect(connection, selection))
    plan.given_up = connection.execute(
        "SELECT count(*) FROM jobs WHERE state = 'failed' AND error_class = ? "
        "AND seq NOT IN (SELECT seq FROM selected)",
        (FailureClass.UNCERTAIN_SUBMIT.value,),
    ).fetchone()[0]
    # GROUP BY would sort a row of every job, in memory.
    counts = ", ".join(f"count(*) FILTER (WHERE shown = '{state.value}')" for state in states)
    row = connection.execute(
        f"SELECT {counts} FROM (SELECT iif(state = 'failed' AND {_HAS_NAMED_TASK}, 'submitted', state) AS shown "
        f"FROM selected JOIN jobs USING (seq) WHERE ({_polled_again(selection)}) IS NOT TRUE)"
    ).fetchone()
    for state, count in zip(states, row, strict=True):
        match next_step(state):
            case Step.POLL:
                plan.to_poll += count
            case Step.DOWNLOAD:
                plan.to_download += count
            case _:
                plan.to_submit += count
    return plan


def requeue_selected(connection: sqlite3.Connection, *, at: float) -> int:
    """
    Make the selected failed jobs pending, or submitted if the manifest names their task; return how many.

    Lost jobs stay as they are, since their tasks are polled first.
    """
    selected = "state = 'failed' AND seq IN (SELECT seq FROM selected)"
    with_task = connection.execute(
        f"SELECT job_id, specs.task_id FROM jobs JOIN specs USING (seq) WHERE {selected} AND {_HAS_NAMED_TASK}"
    ).fetchall()
    for job_id, task_id in with_task:
        attach_task(connection, job_id, task_id, at=at)
    # The old task's id remains in its attempt; a pending job has none.
    requeued = connection.execute(
        f"UPDATE jobs SET state = ?, task_id = NULL, other_task_id = NULL WHERE {selected} "
        f"AND NOT {LOST_WITH_TASK}",
        (advance(State.FAILED, Event.RERUN).value,),
    )
    return len(with_task) + requeued.rowcount


def attach_task(connection: sqlite3.Connection, job_id: str, task_id: str, *, at: float) -> bool:
    """Set the task that belongs to a job; return whether its state allows that."""
    row = _job_row(connection, job_id, Event.ATTACHED)
    if row is None:
        return False
    seq, state, attempt, submitted_at = row
    # The task belongs to an uncertain job's last attempt; any other job gets a new attempt.
    number = attempt if state is State.UNCERTAIN else attempt + 1
    costs.reopen(connection, seq, number)
    connection.execute(
        "UPDATE jobs SET state = ?, task_id = ?, other_task_id = NULL, attempt = ?, submitted_at = ?, "
        "error = NULL, error_class = NULL, finished_at = NULL, polls = 0 WHERE seq = ?",
        (advance(state, Event.ATTACHED).value, task_id, number, submitted_at or at, seq),
    )
    connection.execute(
        rows.SAVE_ATTEMPT, rows.attempt_row(seq, Attempt(number, submitted_at or at, "attached", task_id))
    )
    return True


def mark_not_submitted(connection: sqlite3.Connection, job_id: str) -> bool:
    """Make an uncertain job pending, because a person says that it has no task; return whether it was uncertain."""
    row = _job_row(connection, job_id, Event.CONFIRMED_NOT_SUBMITTED)
    if row is None:
        return False
    seq, state, number, _ = row
    costs.release(connection, seq, number)
    connection.execute(
        "UPDATE jobs SET state = ?, error = NULL, error_class = NULL, finished_at = NULL WHERE seq = ?",
        (advance(state, Event.CONFIRMED_NOT_SUBMITTED).value, seq),
    )
    return True


def write_off(connection: sqlite3.Connection, job_id: str) -> bool:
    """Mark an uncertain job as failed permanently; return whether it was uncertain."""
    row = _job_row(connection, job_id, Event.WRITTEN_OFF)
    if row is None:
        return False
    seq, state, *_ = row
    connection.execute(
        "UPDATE jobs SET state = ? WHERE seq = ?", (advance(state, Event.WRITTEN_OFF).value, seq)
    )
    return True


def import_records(connection: sqlite3.Connection, records: Iterable[JobRecord], *, at: float) -> int:
    """
    Insert jobs from another run's results, with their tasks and attempts; return how many.

    A job that the store has already is left as it is.
    """
    count = 0
    for record in records:
        row = connection.execute(
            "INSERT OR IGNORE INTO jobs (job_id, idx, model, digest, state, has_files, timeout_s, attempt, "
            "task_id, remote_status, submitted_at, finished_at, polls, error_class, error, warnings) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
            (
                record.job_id,
                record.index,
                record.model,
                record.digest,
                record.state.value,
                has_files(record.request),
                record.timeout_s,
                max((attempt.number for attempt in record.attempts), default=0),
                record.task_id,
                record.remote_status,
                record.submitted_at or (at if record.task_id else None),
                record.finished_at,
                record.polls,
                None if record.error is None else record.error.cls.value,
                rows.failure_text(record.error),
                rows.canonical(record.warnings) if record.warnings else None,
            ),
        ).fetchone()
        if row is None:
            continue
        count += 1
        source = record.source
        connection.execute(
            "INSERT INTO specs VALUES (?, ?, ?, ?, '[]', ?, ?, ?, ?)",
            (
                row[0],
                rows.canonical(record.request),
                rows.canonical(record.metadata),
                record.schema,
                source.file,
                source.line,
                source.column,
                _named_task(record),
            ),
        )
        connection.executemany(rows.SAVE_ATTEMPT, [rows.attempt_row(row[0], one) for one in record.attempts])
        costs.save(connection, row[0], record.costs)
    return count


def adopt_records(connection: sqlite3.Connection, records: Iterable[JobRecord], *, at: float) -> int:
    """
    Take over the jobs of results that have an attempt after the store's last one; return how many.

    A job that the store does not have is inserted.
    """
    count = 0
    for record in records:
        number = last_paid_attempt(record.attempts)
        row = connection.execute(
            "SELECT seq, attempt FROM jobs WHERE job_id = ?", (record.job_id,)
        ).fetchone()
        if number <= (0 if row is None else row[1]):
            continue
        if row is None:
            import_records(connection, [record], at=at)
            row = connection.execute("SELECT seq FROM jobs WHERE job_id = ?", (record.job_id,)).fetchone()
        replace_job(connection, row[0], costs.united(connection, row[0], record), attempt=number)
        count += 1
    return count


def replace_job(connection: sqlite3.Connection, seq: int, record: JobRecord, *, attempt: int) -> None:
    """Put what a record knows of a job in place of what the store knows; `attempt` is the one that it belongs to."""
    job = _job_of(record, seq, attempt)
    rows.insert_rows(connection, rows.SAVE_JOBS, [rows.job_row(job)])
    connection.executemany(rows.SAVE_ATTEMPT, [rows.attempt_row(seq, each) for each in record.attempts])
    costs.save(connection, seq, record.costs)
    connection.execute("DELETE FROM assets WHERE seq = ?", (seq,))
    if record.assets:
        assets = [rows.asset_row(seq, attempt, each) for each in record.assets]
        rows.insert_rows(connection, rows.SAVE_ASSETS, assets)
        connection.executemany(rows.SAVE_URLS, filter(None, [rows.urls_row(job, record.assets)]))


def last_paid_attempt(attempts: Iterable[Attempt]) -> int:
    """Return the number of the last attempt that has a task, or may have one; 0 if there is none."""
    return max((each.number for each in attempts if each.outcome in PAID), default=0)


def _job_of(record: JobRecord, seq: int, attempt: int) -> Job:
    return Job(
        seq=seq,
        job_id=record.job_id,
        index=record.index,
        model=record.model,
        state=record.state,
        attempt=attempt,
        task_id=record.task_id,
        remote_status=record.remote_status,
        submitted_at=record.submitted_at,
        completed_at=record.completed_at,
        finished_at=record.finished_at,
        generate_s=record.generate_s,
        download_s=record.download_s,
        polls=record.polls,
        error=record.error,
        warnings=record.warnings,
    )


def mark_undelivered(connection: sqlite3.Connection, failures: Mapping[str, Failure], *, at: float) -> None:
    """Make succeeded jobs undelivered, with the reason of each: the next run downloads them again."""
    state = advance(State.SUCCEEDED, Event.FILES_LOST)
    connection.executemany(
        "UPDATE jobs SET state = ?, error = ?, error_class = ?, finished_at = ? WHERE job_id = ?",
        [
            (state.value, rows.failure_text(failure), failure.cls.value, at, job_id)
            for job_id, failure in failures.items()
        ],
    )


def mark_uncertain(
    connection: sqlite3.Connection, job_ids: Iterable[str], failure: Failure, *, at: float
) -> None:
    """Make pending jobs uncertain, as if a process had ended between their intent and the answer."""
    state = advance(advance(State.PENDING, Event.INTENT), Event.OUTCOME_UNKNOWN)
    for job_id in job_ids:
        (seq, number) = connection.execute(
            "UPDATE jobs SET state = ?, attempt = attempt + 1, error = ?, error_class = ?, finished_at = ? "
            "WHERE job_id = ? RETURNING seq, attempt",
            (state.value, rows.failure_text(failure), failure.cls.value, at, job_id),
        ).fetchone()
        attempt = Attempt(number, at, "uncertain", error=failure)
        connection.execute(rows.SAVE_ATTEMPT, rows.attempt_row(seq, attempt))


def uncertain_ids(connection: sqlite3.Connection, patterns: Sequence[str]) -> list[str]:
    """Return the ids of the uncertain jobs that match any of some globs, in manifest order."""
    where = " OR ".join("job_id GLOB ?" for _ in patterns)
    found = connection.execute(
        f"SELECT job_id FROM jobs WHERE state = ? AND ({where}) ORDER BY idx",
        (State.UNCERTAIN.value, *map(sql_glob, patterns)),
    )
    return [job_id for (job_id,) in found]


def _named_task(record: JobRecord) -> str | None:
    """Return the task that a person named for a job: such a job is polled again, and never submitted."""
    is_attached = bool(record.attempts) and record.attempts[-1].outcome == "attached"
    return record.task_id if is_attached else None


_HAS_NAMED_TASK = "EXISTS (SELECT 1 FROM specs WHERE specs.seq = jobs.seq AND specs.task_id IS NOT NULL)"


def rerunnable_states() -> frozenset[State]:
    """Return the states of jobs that can be rerun."""
    return frozenset(state for state in State if next_step(state) is not None or state is State.FAILED)


def _listed(states: Iterable[State]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


def _conditions(selection: Selection) -> tuple[str, list[str]]:
    parts = ["AND NOT (is_gone AND state IN ('pending', 'failed'))"]
    values: list[str] = []
    if selection.states:
        parts.append("AND state IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(selection.states)))
    if selection.classes:
        parts.append("AND error_class IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(selection.classes)))
    if selection.glob is not None:
        parts.append("AND job_id GLOB ?")
        values.append(sql_glob(selection.glob))
    if selection.ids is not None:
        parts.append("AND job_id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(selection.ids))
    return " ".join(parts), values


def _deselect(connection: sqlite3.Connection, selection: Selection) -> dict[str, int]:
    """Remove the jobs that may not be submitted again from the selection; count all that is left alone, by class."""
    classes = json.dumps(sorted(NEVER_RESUBMITTED - selection.classes))
    polled_again = _polled_again(selection)
    connection.execute(
        "DELETE FROM selected WHERE seq IN (SELECT seq FROM jobs WHERE state = 'failed' "
        f"AND error_class IN (SELECT value FROM json_each(?)) AND NOT {polled_again})",
        (classes,),
    )
    return dict(
        connection.execute(
            "SELECT coalesce(error_class, state), count(*) FROM jobs WHERE state IN ('failed', 'uncertain') "
            f"AND (seq NOT IN (SELECT seq FROM selected) OR {polled_again}) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )


def _polled_again(selection: Selection) -> str:
    """Return the condition for lost jobs that are polled once more and, whatever that shows, not submitted."""
    return "FALSE" if FailureClass.LOST in selection.classes else LOST_WITH_TASK


def _job_row(
    connection: sqlite3.Connection, job_id: str, event: Event
) -> tuple[int, State, int, float | None] | None:
    """Return key, state, number and time of the last attempt; None if the job's state does not allow the event."""
    row = connection.execute(
        "SELECT j.seq, j.state, j.attempt, a.submitted_at FROM jobs j "
        "LEFT JOIN attempts a ON a.seq = j.seq AND a.number = j.attempt WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if row is None or State(row[1]) not in sources(event):
        return None
    return row[0], State(row[1]), row[2], row[3]
