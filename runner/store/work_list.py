"""
The jobs that a process works on: a filter, the queries of those that it submits, polls and downloads, and the few that
are next to be submitted.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from runner.core.lifecycle import State
from runner.core.model import Job
from runner.store import rows

_READ_AHEAD = 256
_COLUMNS = ", ".join([f"jobs.{name}" for name in rows.JOB_COLUMNS.split(", ")])


class JobFilter(Struct, frozen=True):
    """
    Which jobs a run works on.

    Attributes:
        glob: Only jobs whose id matches, as the shell matches file names.
        selected: Only jobs in the temporary table ``selected`` (see `transitions.select_for_rerun`).
        chosen: Only jobs in the temporary table ``chosen`` (see `choose`).
    """

    glob: str | None = None
    selected: bool = False
    chosen: bool = False

    def condition(self) -> tuple[str, tuple[str, ...]]:
        """Return what a query of ``jobs`` adds to its condition, and the values of its placeholders."""
        sql = ""
        if self.selected:
            sql += " AND seq IN (SELECT seq FROM selected)"
        if self.chosen:
            sql += " AND job_id IN (SELECT job_id FROM chosen)"
        return (sql, ()) if self.glob is None else (f"{sql} AND job_id GLOB ?", (sql_glob(self.glob),))

    @property
    def is_restricted(self) -> bool:
        """Whether a person left jobs out."""
        return self.glob is not None or self.chosen


def sql_glob(pattern: str) -> str:
    """
    Return a pattern of file names as SQLite reads it.

    >>> sql_glob("sky-[!1]*")
    'sky-[^1]*'
    """
    return pattern.replace("[!", "[^")


def is_match(connection: sqlite3.Connection, job_id: str, glob: str) -> bool:
    """Return whether an id matches a pattern, as in a query with a `JobFilter`."""
    return bool(connection.execute("SELECT ? GLOB ?", (job_id, sql_glob(glob))).fetchone()[0])


def choose(connection: sqlite3.Connection, job_ids: Iterable[str]) -> None:
    """Write ids to the temporary table ``chosen`` of a connection."""
    connection.execute("DROP TABLE IF EXISTS temp.chosen")
    connection.execute("CREATE TEMP TABLE chosen (job_id TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((job_id,) for job_id in job_ids))


class Matches(Struct, frozen=True):
    """
    How many jobs match a pattern.

    Attributes:
        others_pending: Jobs to submit that do not match.
    """

    jobs: int
    others_pending: int


def matches(connection: sqlite3.Connection, scope: JobFilter) -> Matches:
    """Count the jobs of a filter, and others that are pending."""
    where, values = scope.condition()
    row = connection.execute(
        f"SELECT total(TRUE {where}), total(state = 'pending' AND NOT is_gone AND NOT (TRUE {where})) FROM jobs",
        (*values, *values),
    ).fetchone()
    return Matches(int(row[0]), int(row[1]))


def has_pending(connection: sqlite3.Connection, scope: JobFilter) -> bool:
    """Return whether there are jobs to submit."""
    where, values = scope.condition()
    sql = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'pending' AND NOT is_gone {where})"
    return bool(connection.execute(sql, values).fetchone()[0])


def pending_by_model(connection: sqlite3.Connection, scope: JobFilter) -> dict[str, int]:
    """Count the jobs to submit, by model, in the order of the models' first jobs."""
    where, values = scope.condition()
    return dict(
        connection.execute(
            f"SELECT model, count(*) FROM jobs WHERE state = 'pending' AND NOT is_gone {where} "
            "GROUP BY model ORDER BY min(idx)",
            values,
        ).fetchall()
    )


def pending_up_to(connection: sqlite3.Connection, most: int) -> int:
    """Count the jobs to submit, but no further than a number."""
    sql = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'pending' AND NOT is_gone LIMIT ?)"
    return int(connection.execute(sql, (most,)).fetchone()[0])


def pending(
    connection: sqlite3.Connection,
    model: str,
    *,
    after: tuple[int, int],
    count: int,
    scope: JobFilter,
    waiting_since: float,
) -> list[tuple[Job, str]]:
    """
    Read the next jobs of a model to submit, in manifest order, each with its request's text.

    A job whose task was named in the manifest is never among them, whatever its state.

    Args:
        after: Index and key (``seq``) of the last job that was read; (-1, -1) at first.
    """
    where, values = scope.condition()
    cursor = connection.execute(
        f"SELECT {_COLUMNS}, specs.request FROM jobs JOIN specs USING (seq) "
        f"WHERE state = 'pending' AND model = ? AND (idx, seq) > (?, ?) AND NOT is_gone "
        f"AND specs.task_id IS NULL {where} ORDER BY idx, seq LIMIT ?",
        (model, *after, *values, count),
    )
    return [(rows.read_job(row[:-1], waiting_since=waiting_since), row[-1]) for row in cursor]


def jobs_in_states(
    connection: sqlite3.Connection,
    states: Iterable[State],
    *,
    waiting_since: float,
    scope: JobFilter = JobFilter(),
) -> Iterator[Job]:
    """Read the jobs in some states, in manifest order."""
    names = [state.value for state in states]
    marks = ", ".join("?" * len(names))
    where, values = scope.condition()
    cursor = connection.execute(
        f"SELECT {rows.JOB_COLUMNS} FROM jobs WHERE state IN ({marks}) {where} ORDER BY idx",
        (*names, *values),
    )
    for row in cursor:
        yield rows.read_job(row, waiting_since=waiting_since)


LOST_WITH_TASK = "(state = 'failed' AND error_class = 'lost' AND task_id IS NOT NULL)"
"""The condition for jobs whose tasks the API did not know any more; it may know them again."""


def lost_jobs(
    connection: sqlite3.Connection, *, waiting_since: float, scope: JobFilter = JobFilter()
) -> Iterator[Job]:
    """Read the jobs whose tasks are lost, in manifest order."""
    where, values = scope.condition()
    cursor = connection.execute(
        f"SELECT {rows.JOB_COLUMNS} FROM jobs WHERE {LOST_WITH_TASK} {where} ORDER BY idx", values
    )
    for row in cursor:
        yield rows.read_job(row, waiting_since=waiting_since)


class _ModelQueue(Struct):
    """What is left to submit of one model."""

    ready: deque[tuple[Job, str]] = field(default_factory=deque)
    deferred: list[tuple[float, int, Job, str]] = field(default_factory=list)
    after: tuple[int, int] = (-1, -1)
    unread: int = 0

    def __len__(self) -> int:
        return len(self.ready) + len(self.deferred) + self.unread


class PendingJobs:
    """
    Pending jobs in manifest order, by model; only the next few are in memory.

    A job that must be submitted again comes back through `defer`, and is first in line
    once its time has come.

    Attributes:
        left: How many there are.
    """

    def __init__(self, reader: sqlite3.Connection, job_filter: JobFilter) -> None:
        self._reader = reader
        self._filter = job_filter
        counts = pending_by_model(reader, job_filter)
        self._queues = {model: _ModelQueue(unread=count) for model, count in counts.items()}
        self.left = sum(counts.values())

    def by_model(self) -> dict[str, int]:
        """Count the jobs that are left, by model."""
        return {model: len(queue) for model, queue in self._queues.items()}

    def readiness(self, now: float) -> list[tuple[str, bool]]:
        """Return each model that has jobs left, in the order of their first jobs, and whether one may be submitted now."""
        return [
            (model, bool(queue.ready or queue.unread or queue.deferred[0][0] <= now))
            for model, queue in self._queues.items()
            if queue.ready or queue.unread or queue.deferred
        ]

    def next_due(self, now: float) -> float | None:
        """
        Return when the next deferred job is due, or None.

        A model whose first deferred job is due already waits for something else.
        """
        firsts = (queue.deferred[0][0] for queue in self._queues.values() if queue.deferred)
        return min((due for due in firsts if due > now), default=None)

    def pop(self, model: str, now: float) -> tuple[Job, str] | None:
        """Remove and return the next job of a model with its request's text; None if nothing is ready after all."""
        queue = self._queues[model]
        if queue.deferred and queue.deferred[0][0] <= now:
            _, _, job, text = heapq.heappop(queue.deferred)
            self.left -= 1
            return job, text
        if not queue.ready and queue.unread:
            self._read_ahead(model, queue, now)
        if not queue.ready:
            return None
        self.left -= 1
        return queue.ready.popleft()

    def put_back(self, job: Job, text: str) -> None:
        """Put the job back that `pop` has just returned; it is first in line again."""
        self._queues[job.model].ready.appendleft((job, text))
        self.left += 1

    def defer(self, job: Job, text: str, *, due: float) -> None:
        """Add a job back that is to be submitted again, not before its time."""
        queue = self._queues.setdefault(job.model, _ModelQueue())
        heapq.heappush(queue.deferred, (due, job.seq, job, text))
        self.left += 1

    def _read_ahead(self, model: str, queue: _ModelQueue, now: float) -> None:
        found = pending(
            self._reader, model, after=queue.after, count=_READ_AHEAD, scope=self._filter, waiting_since=now
        )
        queue.ready.extend(found)
        if len(found) < _READ_AHEAD:
            # What was counted at the start and is no longer there is not ours to submit.
            self.left -= queue.unread - len(found)
            queue.unread = 0
        else:
            queue.unread -= len(found)
            last = found[-1][0]
            queue.after = (last.index, last.seq)
