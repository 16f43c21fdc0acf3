"""Questions to ``run.db``; each works on a reader's connection while a run is going."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from itertools import groupby
from typing import Any, TypeVar

from msgspec import Struct

from runner.core.lifecycle import State
from runner.core.model import Asset, FailureClass, Job, JobRecord
from runner.store import rows

_BATCH = 500

_Word = TypeVar("_Word", bound=StrEnum)
_RECORDS = f"SELECT {rows.RECORD_COLUMNS} FROM jobs j JOIN specs s USING (seq)"


class JobFilter(Struct, frozen=True):
    """
    Which jobs a run takes up.

    Attributes:
        glob: Only jobs whose id matches, as the shell matches file names.
        chosen: Only jobs in the temporary table ``chosen`` (see `settle.choose`).
    """

    glob: str | None = None
    selected: bool = False


def counts(connection: sqlite3.Connection, *, with_gone: bool = True) -> dict[State, int]:
    """
    Count the jobs of each state.

    Args:
        with_gone: Whether jobs count that left the manifest; without, those in doubt still do, since a paid
            task may belong to them.
    """
    return _counted(connection, "state", State, "TRUE" if with_gone else "NOT is_gone OR state = 'uncertain'")


_AT_REST_WITHOUT_SUCCESS = "state NOT IN ('pending', 'succeeded') AND error_class IS NOT NULL"


def class_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the jobs that rest without success, by failure class."""
    counts = _counted(connection, "error_class", FailureClass, _AT_REST_WITHOUT_SUCCESS)
    return {cls.value: count for cls, count in sorted(counts.items()) if count}


def first_of_each_class(connection: sqlite3.Connection, classes: Iterable[str]) -> Iterator[JobRecord]:
    """Read the first job of each of these failure classes among those that rest without success."""
    first = f"SELECT seq FROM jobs WHERE {_AT_REST_WITHOUT_SUCCESS} AND error_class = ? ORDER BY idx LIMIT 1"
    for cls in classes:
        yield from records(connection, [seq for (seq,) in connection.execute(first, (cls,))])


def pending_by_model(connection: sqlite3.Connection, scope: JobFilter) -> dict[str, int]:
    """Count what is left to submit, by model, in the order of the models' first jobs."""
    where, values = _scoped(scope)
    return dict(
        connection.execute(
            f"SELECT model, count(*) FROM jobs WHERE state = 'pending' AND NOT is_gone {where} "
            "GROUP BY model ORDER BY min(idx)",
            values,
        ).fetchall()
    )


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

    A job that was given a task by its id is none of them, whatever state it is in.

    Args:
        after: Place in the manifest and handle of the last job that was read.
    """
    where, values = _scoped(scope)
    found = connection.execute(
        f"SELECT {_qualified('jobs')}, specs.request FROM jobs JOIN specs USING (seq) "
        f"WHERE state = 'pending' AND model = ? AND (idx, seq) > (?, ?) AND NOT is_gone "
        f"AND specs.task_id IS NULL {where} ORDER BY idx, seq LIMIT ?",
        (model, *after, *values, count),
    )
    return [(rows.read_job(row[:-1], waiting_since=waiting_since), row[-1]) for row in found]


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
    where, values = _scoped(scope)
    found = connection.execute(
        f"SELECT {rows.JOB_COLUMNS} FROM jobs WHERE state IN ({marks}) {where} ORDER BY idx",
        (*names, *values),
    )
    for row in found:
        yield rows.read_job(row, waiting_since=waiting_since)


def job(connection: sqlite3.Connection, job_id: str, *, waiting_since: float) -> Job | None:
    """Read one job by its id, or None where there is none."""
    row = connection.execute(
        f"SELECT {rows.JOB_COLUMNS} FROM jobs WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    return None if row is None else rows.read_job(row, waiting_since=waiting_since)


class RunRate(Struct, frozen=True):
    """
    How fast a run goes.

    Attributes:
        submitted: Jobs whose newest submission was accepted since a time.
        finished: Jobs that came to rest since then.
    """

    submitted: int
    finished: int
    first_submitted_at: float | None
    last_finished_at: float | None


def run_rate(connection: sqlite3.Connection, *, since_at: float) -> RunRate:
    """Count what was submitted and what ended since a time."""
    row = connection.execute(
        "SELECT total(submitted_at > ?), total(finished_at > ?), min(submitted_at), max(finished_at) FROM jobs",
        (since_at, since_at),
    ).fetchone()
    return RunRate(int(row[0]), int(row[1]), row[2], row[3])


def median_s(connection: sqlite3.Connection, model: str, *, at_least: int) -> float | None:
    """Give the median time that tasks of a model took; None where fewer than so many succeeded."""
    times = "FROM jobs WHERE model = ? AND generate_s IS NOT NULL"
    count = connection.execute(f"SELECT count(*) {times}", (model,)).fetchone()[0]
    if count < at_least:
        return None
    row = connection.execute(
        f"SELECT generate_s {times} ORDER BY generate_s LIMIT 1 OFFSET ?", (model, (count - 1) // 2)
    ).fetchone()
    return float(row[0])


def mean_generate_s(connection: sqlite3.Connection) -> dict[str, float]:
    """Say how long the tasks of each model took on average, of those that succeeded."""
    count: Counter[str] = Counter()
    total_s: defaultdict[str, float] = defaultdict(float)
    # Summed here, since SQLite would sort them all by model first.
    for model, took_s in connection.execute(
        "SELECT model, generate_s FROM jobs WHERE generate_s IS NOT NULL"
    ):
        count[model] += 1
        total_s[model] += took_s
    return {model: total_s[model] / count[model] for model in count}


def job_ids_with_prefix(connection: sqlite3.Connection, start: str, *, most: int) -> list[str]:
    """Name jobs whose ids begin with a text, by the index and in its order."""
    found = connection.execute(
        "SELECT job_id FROM jobs WHERE job_id >= ? AND job_id < ? ORDER BY job_id LIMIT ?",
        (start, f"{start}\U0010ffff", most),
    )
    return [job_id for (job_id,) in found]


def job_ids_by_task(connection: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, str]:
    """Name the jobs that have, or had, some tasks: job ids by task id."""
    wanted = json.dumps(list(task_ids))
    found = connection.execute(
        "SELECT a.task_id, j.job_id FROM attempts a JOIN jobs j USING (seq) "
        "WHERE a.task_id IN (SELECT value FROM json_each(?1)) UNION "
        "SELECT task_id, job_id FROM jobs WHERE task_id IN (SELECT value FROM json_each(?1))",
        (wanted,),
    )
    return dict(found.fetchall())


def request_text(connection: sqlite3.Connection, seq: int) -> str:
    """Read a job's request as it is stored: the canonical JSON that is sent."""
    return str(connection.execute("SELECT request FROM specs WHERE seq = ?", (seq,)).fetchone()[0])


def records(connection: sqlite3.Connection, seqs: Sequence[int] | None = None) -> Iterator[JobRecord]:
    """
    Read whole records: of some jobs in no certain order, or of all of them in manifest order.

    A job that left the manifest comes after those that are in it.
    """
    if seqs is not None:
        for start in range(0, len(seqs), _BATCH):
            yield from _records_of(connection, seqs[start : start + _BATCH])
        return
    for gone in (0, 1):
        last: tuple[Any, ...] = (-1, -1)
        while last:
            # In pieces, so that a run that goes on meanwhile is not kept from clearing its log.
            piece = connection.execute(
                f"{_RECORDS} WHERE (j.idx, j.seq) > (?, ?) AND j.is_gone = ? ORDER BY j.idx, j.seq LIMIT ?",
                (*last, gone, _BATCH),
            ).fetchall()
            yield from _whole(connection, piece)
            last = (piece[-1][2], piece[-1][0]) if piece else ()


def records_in(connection: sqlite3.Connection, states: Set[State]) -> Iterator[JobRecord]:
    """Read the whole records of the jobs in some states, in the order of `records`."""
    found = connection.execute(
        "SELECT seq FROM jobs WHERE state IN (SELECT value FROM json_each(?)) ORDER BY is_gone, idx, seq",
        (json.dumps([state.value for state in states]),),
    )
    while seqs := [seq for (seq,) in found.fetchmany(_BATCH)]:
        yield from _records_of(connection, seqs)


def assets_of(connection: sqlite3.Connection, job: Job) -> tuple[Asset, ...]:
    """Read the assets that a job's present attempt has brought so far, the video first."""
    found = connection.execute(
        "SELECT * FROM assets WHERE seq = ? AND attempt = ? ORDER BY kind DESC", (job.seq, job.attempt)
    )
    return tuple(rows.read_asset(row[1:]) for row in found)


def parts_of(connection: sqlite3.Connection, job: Job) -> dict[str, Mapping[str, Any]]:
    """Read what is known of the unfinished downloads of a job's present attempt, by kind of asset."""
    found = connection.execute(
        "SELECT kind, facts FROM parts WHERE seq = ? AND attempt = ?", (job.seq, job.attempt)
    )
    return {kind: json.loads(facts) for kind, facts in found}


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    """Read a fact about the whole run."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _counted(
    connection: sqlite3.Connection, column: str, values: Iterable[_Word], where: str
) -> dict[_Word, int]:
    """Count the jobs by a column of few values. Not grouped: for that SQLite sorts a row of every job, in memory."""
    words = list(values)
    counts = ", ".join(f"count(*) FILTER (WHERE {column} = '{word.value}')" for word in words)
    return dict(
        zip(words, connection.execute(f"SELECT {counts} FROM jobs WHERE {where}").fetchone(), strict=True)
    )


def _records_of(connection: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[JobRecord]:
    found = connection.execute(
        f"{_RECORDS} WHERE j.seq IN (SELECT value FROM json_each(?)) ORDER BY j.is_gone, j.idx, j.seq",
        (json.dumps(seqs),),
    )
    yield from _whole(connection, found.fetchall())


def _whole(connection: sqlite3.Connection, found: Sequence[rows.Row]) -> Iterator[JobRecord]:
    """Make records of rows of `_RECORDS`, with the attempts and assets that belong to them."""
    chunk = (json.dumps([row[0] for row in found]),)
    attempts = _grouped(connection, "attempts", "number", chunk)
    assets = _grouped(connection, "assets", "kind DESC", chunk)
    for row in found:
        yield rows.read_record(
            row,
            tuple(rows.read_attempt(a[1:]) for a in attempts.get(row[0], ())),
            tuple(rows.read_asset(a[1:]) for a in assets.get(row[0], ())),
        )


def _grouped(
    connection: sqlite3.Connection, table: str, order: str, chunk: tuple[str]
) -> dict[int, list[tuple[Any, ...]]]:
    found = connection.execute(
        f"SELECT * FROM {table} WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq, {order}",
        chunk,
    )
    return {seq: list(group) for seq, group in groupby(found, key=lambda row: row[0])}


def _scoped(scope: JobFilter) -> tuple[str, tuple[str, ...]]:
    chosen = "AND seq IN (SELECT seq FROM chosen)" if scope.selected else ""
    return (chosen, ()) if scope.glob is None else (f"{chosen} AND job_id GLOB ?", (scope.glob,))


def _qualified(table: str) -> str:
    return ", ".join(f"{table}.{name.strip()}" for name in rows.JOB_COLUMNS.split(","))
