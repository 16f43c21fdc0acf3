"""Queries of ``run.db``; each works on a reader's connection while a run is active."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct

from runner.core.lifecycle import State
from runner.core.model import FailureClass, Job, JobRecord
from runner.store import rows, takes
from runner.store.costs import costs_of

_BATCH = 500
_MAX_UNCOMMITTED = 1000
_BITS_PER_TASK = 16
"""Of the bitmap: this many times fewer queries are made than there are new tasks."""

Meta = Mapping[str, str]
"""The values of the run as a whole, by key; see `meta`."""

_Value = TypeVar("_Value", bound=StrEnum)
_RECORDS = f"SELECT {rows.RECORD_COLUMNS} FROM jobs j JOIN specs s USING (seq)"


def counts(connection: sqlite3.Connection, *, with_gone: bool = True) -> dict[State, int]:
    """
    Count the jobs of each state.

    Args:
        with_gone: Whether to count jobs that were removed from the manifest. Uncertain ones are always
            counted, because they may have a paid task.
    """
    return _count(connection, "state", State, "TRUE" if with_gone else _NOT_GONE)


_NOT_GONE = "(NOT is_gone OR state = 'uncertain')"
_UNSUCCESSFUL = f"error_class IS NOT NULL AND state NOT IN ('pending', 'succeeded') AND {_NOT_GONE}"


def class_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the jobs that ended without success, by failure class; without those that left the manifest, like `counts`."""
    counts = _count(connection, "error_class", FailureClass, _UNSUCCESSFUL)
    return {cls.value: count for cls, count in sorted(counts.items()) if count}


def first_of_each_class(connection: sqlite3.Connection, classes: Iterable[str]) -> Iterator[JobRecord]:
    """Read the first job of each of these failure classes among those that ended without success."""
    first = f"SELECT seq FROM jobs WHERE {_UNSUCCESSFUL} AND error_class = ? ORDER BY idx LIMIT 1"
    for cls in classes:
        yield from records(connection, [seq for (seq,) in connection.execute(first, (cls,))])


def has_jobs(connection: sqlite3.Connection, count: int) -> bool:
    """Return whether the run has at least a number of jobs."""
    row = connection.execute("SELECT 1 FROM jobs LIMIT 1 OFFSET ?", (max(0, count - 1),)).fetchone()
    return row is not None


def has_attempts(connection: sqlite3.Connection) -> bool:
    """Return whether any job was submitted, or may have been."""
    return (
        connection.execute("SELECT 1 FROM jobs WHERE attempt > 0 OR task_id IS NOT NULL LIMIT 1").fetchone()
        is not None
    )


def job(connection: sqlite3.Connection, job_id: str, *, waiting_since: float) -> Job | None:
    """Read one job by its id; None if there is none."""
    row = connection.execute(
        f"SELECT {rows.JOB_COLUMNS} FROM jobs WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    return None if row is None else rows.read_job(row, waiting_since=waiting_since)


class RunRate(Struct, frozen=True):
    """
    How fast a run is.

    Attributes:
        submitted: Jobs whose newest submission was accepted since a time.
        finished: Jobs that ended since then.
    """

    submitted: int
    finished: int
    first_submitted_at: float | None
    last_submitted_at: float | None
    last_finished_at: float | None


def run_rate(connection: sqlite3.Connection, *, since_at: float) -> RunRate:
    """Count the jobs that were submitted, and that ended, since a time."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE submitted_at > ?), count(*) FILTER (WHERE finished_at > ?), "
        "min(submitted_at), max(submitted_at), max(finished_at) FROM jobs",
        (since_at, since_at),
    ).fetchone()
    return RunRate(*row)


def median_s(connection: sqlite3.Connection, model: str, *, at_least: int) -> float | None:
    """Return the median duration of a model's tasks; None if fewer than ``at_least`` succeeded."""
    times = "FROM jobs WHERE model = ? AND generate_s IS NOT NULL"
    count = connection.execute(f"SELECT count(*) {times}", (model,)).fetchone()[0]
    if count < at_least:
        return None
    row = connection.execute(
        f"SELECT generate_s {times} ORDER BY generate_s LIMIT 1 OFFSET ?", (model, (count - 1) // 2)
    ).fetchone()
    return float(row[0])


def mean_generate_s(connection: sqlite3.Connection) -> dict[str, float]:
    """Return how long the tasks of each model took on average, of the last hundred thousand that succeeded."""
    count: Counter[str] = Counter()
    total_s: defaultdict[str, float] = defaultdict(float)
    # Summed here, because SQLite would sort them all by model first.
    for model, seconds in connection.execute(
        "SELECT model, generate_s FROM jobs WHERE generate_s IS NOT NULL ORDER BY seq DESC LIMIT 100000"
    ):
        count[model] += 1
        total_s[model] += seconds
    return {model: total_s[model] / count[model] for model in count}


def job_ids_with_prefix(connection: sqlite3.Connection, prefix: str, *, limit: int) -> list[str]:
    """Return job ids that start with a text, sorted; at most ``limit``."""
    cursor = connection.execute(
        "SELECT job_id FROM jobs WHERE job_id >= ? AND job_id < ? ORDER BY job_id LIMIT ?",
        (prefix, f"{prefix}\U0010ffff", limit),
    )
    return [job_id for (job_id,) in cursor]


def job_ids(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the ids of all jobs, in no particular order."""
    for (job_id,) in connection.execute("SELECT job_id FROM jobs"):
        yield job_id


def job_ids_by_task(connection: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, str]:
    """Return the jobs that have, or had, some tasks: job ids by task id."""
    cursor = connection.execute(
        "SELECT a.task_id, j.job_id FROM attempts a JOIN jobs j USING (seq) "
        "WHERE a.task_id IN (SELECT value FROM json_each(?1)) UNION "
        "SELECT task_id, job_id FROM jobs WHERE task_id IN (SELECT value FROM json_each(?1))",
        (json.dumps(list(task_ids)),),
    )
    return dict(cursor.fetchall())


def task_owner(connection: sqlite3.Connection, task_id: str) -> str | None:
    """Return the job that has, or had, a task; None if no job of the run has."""
    row = connection.execute(
        "SELECT job_id FROM attempts JOIN jobs USING (seq) WHERE attempts.task_id = ? LIMIT 1", (task_id,)
    ).fetchone()
    return None if row is None else str(row[0])


class TaskOwners:
    """
    Finds the owners of tasks, those of earlier processes and those that are not committed yet.

    Nearly every task is new. A bitmap shows that for most, since a query for each took 2 % of a job's time.

    Args:
        reader: A connection that sees what is committed.
    """

    def __init__(self, reader: sqlite3.Connection) -> None:
        self._reader = reader
        # Job ids and commits by task id; what is committed may be removed.
        self._new: dict[str, tuple[str, int]] = {}
        self._bitmap: bytearray | None = None
        self._mask = 0

    def add(self, task_id: str, job_id: str, *, commit: int, durable: int) -> None:
        """
        Add a task that was saved just now.

        Args:
            commit: The number of the commit that it is saved with.
            durable: The number of the last commit that `reader` sees.
        """
        if len(self._new) >= _MAX_UNCOMMITTED:
            self._new = {task: new for task, new in self._new.items() if new[1] > durable}
        self._new[task_id] = (job_id, commit)
        if self._bitmap is not None:
            self._mark(self._bitmap, task_id)

    def find(self, task_id: str) -> str | None:
        """Return the job that has, or had, a task; None if no job of the run has."""
        new = self._new.get(task_id)
        if new is not None:
            return new[0]
        if self._bitmap is None:
            self._bitmap = self._read_tasks()
        bit = hash(task_id) & self._mask
        if not self._bitmap[bit >> 3] & 1 << (bit & 7):
            return None
        return task_owner(self._reader, task_id)

    def _read_tasks(self) -> bytearray:
        """Make the bitmap, large enough for the tasks that there are and one more for each job."""
        tasks = "FROM attempts WHERE task_id IS NOT NULL"
        (count,) = self._reader.execute(
            f"SELECT (SELECT count(*) {tasks}) + (SELECT count(*) FROM jobs)"
        ).fetchone()
        size = 1 << (count * _BITS_PER_TASK | 8).bit_length()
        bitmap, self._mask = bytearray(size // 8), size - 1
        for (task_id,) in self._reader.execute(f"SELECT task_id {tasks}"):
            self._mark(bitmap, task_id)
        for task_id in self._new:
            self._mark(bitmap, task_id)
        return bitmap

    def _mark(self, bitmap: bytearray, task_id: str) -> None:
        bit = hash(task_id) & self._mask
        bitmap[bit >> 3] |= 1 << (bit & 7)


def answers(connection: sqlite3.Connection, job_id: str) -> dict[int, str]:
    """Read the answers about a job that were not understood, by the number of the attempt."""
    cursor = connection.execute(
        "SELECT number, answer FROM answers JOIN jobs USING (seq) WHERE job_id = ? ORDER BY number", (job_id,)
    )
    return dict(cursor.fetchall())


def last_attempt_at(connection: sqlite3.Connection, job_id: str) -> float | None:
    """Return when a job's last attempt began, in seconds since 1970; None if it has none."""
    row = connection.execute(
        "SELECT max(attempts.submitted_at) FROM attempts JOIN jobs USING (seq) WHERE job_id = ?", (job_id,)
    ).fetchone()
    return None if row is None else row[0]


def request_text(connection: sqlite3.Connection, seq: int) -> str:
    """Read a job's request as it is stored: the canonical JSON that is sent."""
    return str(connection.execute("SELECT request FROM specs WHERE seq = ?", (seq,)).fetchone()[0])


def records(connection: sqlite3.Connection, seqs: Sequence[int] | None = None) -> Iterator[JobRecord]:
    """
    Read the full records of some jobs, in no particular order, or of all of them in manifest order.

    Jobs that were removed from the manifest come last.
    """
    if seqs is not None:
        for start in range(0, len(seqs), _BATCH):
            yield from _records_of(connection, seqs[start : start + _BATCH])
        return
    for gone in (0, 1):
        last: tuple[Any, ...] = (-1, -1)
        while last:
            # In batches, because a long query would prevent an active run from truncating its log.
            batch = connection.execute(
                f"{_RECORDS} WHERE (j.idx, j.seq) > (?, ?) AND j.is_gone = ? ORDER BY j.idx, j.seq LIMIT ?",
                (*last, gone, _BATCH),
            ).fetchall()
            yield from _with_details(connection, batch)
            last = (batch[-1][2], batch[-1][0]) if batch else ()


def records_of_block(
    connection: sqlite3.Connection, key: tuple[int, int], size: int
) -> Iterator[tuple[int, JobRecord]]:
    """Read the full records of the jobs of a block, each with its key, in the order of `records`."""
    is_gone, number = key
    batch = connection.execute(
        f"{_RECORDS} WHERE j.is_gone = ? AND j.idx >= ? AND j.idx < ? ORDER BY j.idx, j.seq",
        (is_gone, number * size, (number + 1) * size),
    ).fetchall()
    yield from zip((row[0] for row in batch), _with_details(connection, batch), strict=True)


def records_in(connection: sqlite3.Connection, states: Set[State]) -> Iterator[JobRecord]:
    """Read the full records of the jobs in some states, in the order of `records`."""
    cursor = connection.execute(
        "SELECT seq FROM jobs WHERE state IN (SELECT value FROM json_each(?)) ORDER BY is_gone, idx, seq",
        (json.dumps([state.value for state in states]),),
    )
    while seqs := [seq for (seq,) in cursor.fetchmany(_BATCH)]:
        yield from _records_of(connection, seqs)


def meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Read the values of the run as a whole, by key."""
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def _count(
    connection: sqlite3.Connection, column: str, values: Iterable[_Value], where: str
) -> dict[_Value, int]:
    """Count the jobs by a column of few values. GROUP BY would sort a row of every job, in memory."""
    members = list(values)
    counts = ", ".join(f"count(*) FILTER (WHERE {column} = '{member.value}')" for member in members)
    return dict(
        zip(members, connection.execute(f"SELECT {counts} FROM jobs WHERE {where}").fetchone(), strict=True)
    )


def _records_of(connection: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[JobRecord]:
    cursor = connection.execute(
        f"{_RECORDS} WHERE j.seq IN (SELECT value FROM json_each(?)) ORDER BY j.is_gone, j.idx, j.seq",
        (json.dumps(seqs),),
    )
    yield from _with_details(connection, cursor.fetchall())


def _with_details(connection: sqlite3.Connection, batch: Sequence[rows.Row]) -> Iterator[JobRecord]:
    """Convert rows of `_RECORDS` to records, with their attempts and assets."""
    seqs = json.dumps([row[0] for row in batch])
    attempts = _grouped(connection, "attempts", "number", seqs)
    assets = _grouped(connection, "assets", "kind DESC", seqs)
    replaced = takes.texts_by_attempt(connection, "replaced_requests", seqs) if assets else {}
    tracks = takes.texts_by_attempt(connection, "tracks", seqs) if assets else {}
    urls = takes.texts_by_attempt(connection, "asset_urls", seqs) if assets else {}
    findings = takes.texts_by_attempt(connection, "checks", seqs) if assets else {}
    old = takes.old_assets(connection, seqs) if assets else {}
    usages = takes.texts_by_attempt(connection, "usages", seqs)
    costs = costs_of(connection, seqs)
    for row in batch:
        seq = row[0]
        present = assets.get(seq, ())
        delivered = [rows.read_asset(a, replaced, tracks, urls) for a in present]
        if seq in old:
            delivered += takes.not_present(old[seq], present, replaced, urls)
        yield rows.read_record(
            row,
            tuple([rows.read_attempt(a[1:]) for a in attempts.get(seq, ())]),
            tuple(delivered),
            usages.get((seq, row[-1])),
            findings.get((seq, row[-1])),
            costs.get(seq, ()),
        )


def _grouped(
    connection: sqlite3.Connection, table: str, order: str, seqs: str
) -> dict[int, list[tuple[Any, ...]]]:
    cursor = connection.execute(
        f"SELECT * FROM {table} WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq, {order}",
        (seqs,),
    )
    groups: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in cursor:
        groups[row[0]].append(row)
    return groups
