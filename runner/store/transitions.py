"""
Moves of many jobs at once, between runs: after a crash, for a rerun, by a person's word.

Each works in the transaction that its caller has open, and follows the
transition table like everything else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct

from runner.core.lifecycle import Event, State, advance, next_step, recovery, sources
from runner.core.model import Attempt, Failure, FailureClass, JobRecord, has_files
from runner.store import rows

NEVER_RESUBMITTED = frozenset(
    {
        FailureClass.UNCERTAIN_SUBMIT,
        FailureClass.LOST,
        FailureClass.MODERATION,
        FailureClass.INVALID_REQUEST,
    }
)
"""
Classes that no rerun submits again unless they are named: a paid task may exist for the first two, and
the other two would only be refused again.
"""


class Selection(Struct, frozen=True):
    """
    Which jobs a rerun takes up: those that meet every condition that is given.

    Attributes:
        states: By state; empty for any.
        classes: By failure class; empty for any but those that are left alone.
        glob: By id, as the shell matches file names.
    """

    states: frozenset[State] = frozenset()
    classes: frozenset[FailureClass] = frozenset()
    glob: str | None = None


def recover(connection: sqlite3.Connection, *, at: float) -> int:
    """Put every job in doubt that a dead process left between intent and answer; return how many."""
    failure = Failure(
        FailureClass.UNCERTAIN_SUBMIT, "the process ended between sending the job and recording the answer"
    )
    text = rows.failure_text(failure)
    count = 0
    for state in State:
        event = recovery(state)
        if event is None:
            continue
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
    """What a rerun does; counts of jobs, and what it leaves alone by class."""

    to_submit: int = 0
    to_poll: int = 0
    to_download: int = 0
    left_alone: dict[str, int] | None = None


def select_for_rerun(connection: sqlite3.Connection, selection: Selection) -> RerunPlan:
    """
    Note the jobs that a rerun takes up in the temporary table ``chosen``, and count them.

    Jobs that left the manifest are never submitted; what they have paid for is still polled and fetched.
    """
    connection.execute("DROP TABLE IF EXISTS temp.chosen")
    connection.execute("CREATE TEMP TABLE chosen (seq INTEGER PRIMARY KEY, state TEXT NOT NULL)")
    where, values = _conditions(selection)
    connection.execute(
        f"INSERT INTO chosen SELECT seq, iif(state = 'failed' AND {_ADOPTED}, 'submitted', state) FROM jobs "
        f"WHERE state IN ({_listed(rerunnable_states())}) {where}",
        values,
    )
    left_alone = _leave_alone(connection, selection)
    counts = dict(connection.execute("SELECT state, count(*) FROM chosen GROUP BY state").fetchall())
    plan = RerunPlan(left_alone=left_alone)
    for name, count in counts.items():
        match next_step(State(name)):
            case "poll":
                plan.to_poll += count
            case "download":
                plan.to_download += count
            case _:
                plan.to_submit += count
    return plan


def requeue_selected(connection: sqlite3.Connection, *, at: float) -> int:
    """Make the chosen failed jobs pending again, those with a task of their own submitted; return how many."""
    chosen = "state = 'failed' AND seq IN (SELECT seq FROM chosen)"
    adopted = connection.execute(
        f"SELECT job_id, specs.task_id FROM jobs JOIN specs USING (seq) WHERE {chosen} AND {_ADOPTED}"
    ).fetchall()
    for job_id, task_id in adopted:
        attach_task(connection, job_id, task_id, at=at)
    # The old task's id stays with its attempt; a pending job has none.
    moved = connection.execute(
        f"UPDATE jobs SET state = ?, task_id = NULL, other_task_id = NULL WHERE {chosen}",
        (advance(State.FAILED, Event.RERUN).value,),
    )
    return len(adopted) + moved.rowcount


def attach_task(connection: sqlite3.Connection, job_id: str, task_id: str, *, at: float) -> bool:
    """Give a job the task that belongs to it; say whether its state allows that."""
    row = _movable(connection, job_id, Event.ATTACHED)
    if row is None:
        return False
    seq, state, attempt, submitted_at = row
    # A doubtful attempt has found its task; a failed job gets a new attempt.
    number = attempt if state is State.UNCERTAIN else attempt + 1
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
    """Make a job pending again whose doubtful POST made no task, as a person says; say whether it was in doubt."""
    row = _movable(connection, job_id, Event.CONFIRMED_NOT_SUBMITTED)
    if row is None:
        return False
    seq, state, *_ = row
    connection.execute(
        "UPDATE jobs SET state = ?, error = NULL, error_class = NULL, finished_at = NULL WHERE seq = ?",
        (advance(state, Event.CONFIRMED_NOT_SUBMITTED).value, seq),
    )
    return True


def write_off(connection: sqlite3.Connection, job_id: str) -> bool:
    """Fail a job in doubt for good; say whether it was in doubt."""
    row = _movable(connection, job_id, Event.WRITTEN_OFF)
    if row is None:
        return False
    seq, state, *_ = row
    connection.execute(
        "UPDATE jobs SET state = ? WHERE seq = ?", (advance(state, Event.WRITTEN_OFF).value, seq)
    )
    return True


def import_records(connection: sqlite3.Connection, records: Iterable[JobRecord], *, at: float) -> int:
    """
    Take in jobs as another run's results know them, with their tasks and their history; return how many.

    A job that the store has already stays as it is.
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
                _asked_task(record),
            ),
        )
        connection.executemany(
            rows.SAVE_ATTEMPT, [rows.attempt_row(row[0], attempt) for attempt in record.attempts]
        )
    return count


def uncertain_ids(connection: sqlite3.Connection, patterns: Sequence[str]) -> list[str]:
    """Name the jobs in doubt whose ids match any of some globs, in manifest order."""
    where = " OR ".join("job_id GLOB ?" for _ in patterns)
    found = connection.execute(
        f"SELECT job_id FROM jobs WHERE state = ? AND ({where}) ORDER BY idx",
        (State.UNCERTAIN.value, *patterns),
    )
    return [job_id for (job_id,) in found]


def _asked_task(record: JobRecord) -> str | None:
    """Name the task that a job was given by its id: such a job is polled again, and never submitted."""
    is_attached = bool(record.attempts) and record.attempts[-1].outcome == "attached"
    return record.task_id if is_attached else None


_ADOPTED = "EXISTS (SELECT 1 FROM specs WHERE specs.seq = jobs.seq AND specs.task_id IS NOT NULL)"


def rerunnable_states() -> frozenset[State]:
    """Name the states that a rerun takes jobs up from."""
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
        values.append(selection.glob)
    return " ".join(parts), values


def _leave_alone(connection: sqlite3.Connection, selection: Selection) -> dict[str, int]:
    classes = json.dumps(sorted(NEVER_RESUBMITTED - selection.classes))
    connection.execute(
        "DELETE FROM chosen WHERE seq IN (SELECT seq FROM jobs WHERE state = 'failed' "
        "AND error_class IN (SELECT value FROM json_each(?)))",
        (classes,),
    )
    return dict(
        connection.execute(
            "SELECT coalesce(error_class, state), count(*) FROM jobs WHERE state IN ('failed', 'uncertain') "
            "AND seq NOT IN (SELECT seq FROM chosen) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )


def _movable(
    connection: sqlite3.Connection, job_id: str, event: Event
) -> tuple[int, State, int, float | None] | None:
    row = connection.execute(
        "SELECT j.seq, j.state, j.attempt, a.submitted_at FROM jobs j "
        "LEFT JOIN attempts a ON a.seq = j.seq AND a.number = j.attempt WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if row is None or State(row[1]) not in sources(event):
        return None
    return row[0], State(row[1]), row[2], row[3]
