"""Queries of ``run.db`` about the takes of jobs: their attempts, their videos, and what checks found of these."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from runner.core.model import Asset, Attempt, Json
from runner.store import rows
from runner.store.work_list import JobFilter

_DELIVERED = (
    "FROM jobs j JOIN assets a ON a.seq = j.seq AND a.attempt = j.attempt "
    "WHERE j.state = 'succeeded' AND a.kind = 'video'"
)

UNCHECKED: Mapping[str, Json] = {"checks": {}, "warnings": [], "verdict": None, "unchecked": True}
"""Findings of a video that no check has seen: what is found by its digest alone is added to them."""


def takes(connection: sqlite3.Connection, seq: int) -> tuple[Attempt, ...]:
    """Read the attempts at a job; none if it was removed from the manifest, or has a task that a person named."""
    cursor = connection.execute(
        "SELECT a.* FROM attempts a JOIN jobs USING (seq) JOIN specs s USING (seq) "
        "WHERE seq = ? AND NOT is_gone AND s.task_id IS NULL ORDER BY number",
        (seq,),
    )
    return tuple(rows.read_attempt(row[1:]) for row in cursor)


def count_awaiting_take(connection: sqlite3.Connection) -> int:
    """Count the pending jobs that had a video, which was rejected and is kept until there is a new one."""
    (count,) = connection.execute(
        "SELECT count(*) FROM jobs j WHERE state = 'pending' AND NOT is_gone "
        "AND EXISTS (SELECT 1 FROM assets a WHERE a.seq = j.seq AND a.attempt = j.attempt)"
    ).fetchone()
    return int(count)


def texts_by_attempt(connection: sqlite3.Connection, table: str, seqs: str) -> dict[tuple[int, int], str]:
    """Read a table of texts by job and attempt, of the jobs of a JSON list of keys."""
    cursor = connection.execute(
        f"SELECT * FROM {table} WHERE seq IN (SELECT value FROM json_each(?))", (seqs,)
    )
    return {(seq, attempt): text for seq, attempt, text in cursor}


def old_assets(connection: sqlite3.Connection, seqs: str) -> Mapping[int, list[rows.Row]]:
    """Read the rows of what is kept of old takes of some jobs, given as a JSON list of keys, the newest take first."""
    found: defaultdict[int, list[rows.Row]] = defaultdict(list)
    for row in connection.execute(
        "SELECT seq, kind, path, bytes, sha256, content_type, width, height, duration_s, attempt FROM old_assets WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY attempt DESC, kind DESC",
        (seqs,),
    ):
        found[row[0]].append(row)
    return found


def not_present(
    old: Sequence[rows.Row],
    present: Sequence[rows.Row],
    replaced: Mapping[tuple[int, int], str],
    urls: Mapping[tuple[int, int], str],
) -> Iterator[Asset]:
    """Convert rows of old takes to assets, except those of the take that is still the present one."""
    attempts = {row[-1] for row in present}
    for row in old:
        if row[-1] not in attempts:
            yield replace(rows.read_asset(row, replaced, urls=urls), take=row[-1])


def attempt_number(connection: sqlite3.Connection, seq: int) -> int:
    """Read the number of a job's newest attempt."""
    return int(connection.execute("SELECT attempt FROM jobs WHERE seq = ?", (seq,)).fetchone()[0])


def job_id(connection: sqlite3.Connection, seq: int) -> str:
    """Read the id of a job."""
    return str(connection.execute("SELECT job_id FROM jobs WHERE seq = ?", (seq,)).fetchone()[0])


def count_videos(connection: sqlite3.Connection) -> int:
    """Count the videos of the jobs that succeeded."""
    return int(connection.execute(f"SELECT count(*) {_DELIVERED}").fetchone()[0])


def video_digests(connection: sqlite3.Connection) -> Iterator[tuple[int, int, str, str]]:
    """Read the videos of the jobs that succeeded, in manifest order: key, attempt, job id and digest."""
    yield from connection.execute(f"SELECT j.seq, j.attempt, j.job_id, a.sha256 {_DELIVERED} ORDER BY j.idx")


def delivered(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Read the jobs that succeeded with a video, in manifest order: keys and attempts."""
    return connection.execute(f"SELECT j.seq, j.attempt {_DELIVERED} ORDER BY j.idx").fetchall()


def unchecked(connection: sqlite3.Connection, scope: JobFilter) -> Iterator[int]:
    """Read the jobs that succeeded with a video that was never checked, in manifest order: their keys."""
    sql, values = scope.condition()
    cursor = connection.execute(
        f"SELECT seq FROM (SELECT j.* {_DELIVERED}) jobs WHERE NOT EXISTS "
        "(SELECT 1 FROM checks c WHERE c.seq = jobs.seq AND c.attempt = jobs.attempt "
        f"AND json_extract(findings, '$.unchecked') IS NULL) {sql} ORDER BY idx",
        values,
    )
    return (seq for (seq,) in cursor)


def unchecked_paths(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the paths of all files of jobs that succeeded with a video that was never checked."""
    seqs = json.dumps(list(unchecked(connection, JobFilter())))
    cursor = connection.execute(
        "SELECT path FROM assets WHERE seq IN (SELECT value FROM json_each(?))", (seqs,)
    )
    return (path for (path,) in cursor)


def findings(connection: sqlite3.Connection, *, containing: str = "") -> Iterator[tuple[int, int, str]]:
    """Read what checks found of the newest takes, if the text has a word in quotes: key, attempt and text."""
    yield from connection.execute(
        "SELECT c.* FROM checks c JOIN jobs j ON j.seq = c.seq AND j.attempt = c.attempt "
        "WHERE instr(findings, ?)",
        (f'"{containing}"' if containing else "{",),
    )


def findings_of(connection: sqlite3.Connection, seq: int, attempt: int) -> str | None:
    """Read what checks found of a take; None if it was not checked."""
    row = connection.execute(
        "SELECT findings FROM checks WHERE seq = ? AND attempt = ?", (seq, attempt)
    ).fetchone()
    return None if row is None else str(row[0])
