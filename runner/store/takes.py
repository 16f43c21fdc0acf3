"""
The takes of jobs: their attempts, their videos, and what checks found of these.

And new takes of jobs that succeeded: what is rejected, what is kept of the old take, and what is submitted again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Asset, Attempt, Json, Verdicts
from runner.store import rows
from runner.store.work_list import JobFilter, sql_glob

_DELIVERED = (
    "FROM jobs j JOIN assets a ON a.seq = j.seq AND a.attempt = j.attempt "
    "WHERE j.state = 'succeeded' AND a.kind = 'video'"
)

_ASSET = "seq, kind, path, bytes, sha256, content_type, width, height, duration_s, attempt"
_PLACES = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
"""The columns of `rows.asset_row`, and as many placeholders."""

_BY_CHECKS = "checks"
_MAX_SEED = 2**31 - 1
"""The largest that every model takes."""

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


def assets_of(connection: sqlite3.Connection, seq: int, attempt: int) -> tuple[Asset, ...]:
    """Read the assets of an attempt at a job, the video first."""
    cursor = connection.execute(
        "SELECT * FROM assets WHERE seq = ? AND attempt = ? ORDER BY kind DESC", (seq, attempt)
    )
    urls = texts_by_attempt(connection, "asset_urls", json.dumps([seq]))
    return tuple(rows.read_asset(row, {}, urls=urls) for row in cursor)


def old_assets(connection: sqlite3.Connection, seqs: str) -> Mapping[int, list[rows.Row]]:
    """Read the rows of what is kept of old takes of some jobs, given as a JSON list of keys, the newest take first."""
    found: defaultdict[int, list[rows.Row]] = defaultdict(list)
    for row in connection.execute(
        f"SELECT {_ASSET} FROM old_assets WHERE seq IN (SELECT value FROM json_each(?)) "
        "ORDER BY attempt DESC, kind DESC",
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


class Retake(Struct, frozen=True):
    """
    A job to make a new take of.

    Attributes:
        attempt: The number of the attempt that made the rejected take.
        verdict_at: What distinguishes the verdict from a later one.
        assets: What the old take has, and is kept.
    """

    seq: int
    job_id: str
    attempt: int
    verdict_at: str
    assets: tuple[Asset, ...]


def rejected(connection: sqlite3.Connection, verdicts: Verdicts, glob: str | None) -> list[Retake]:
    """
    Return the jobs that succeeded and whose take is rejected, by a person or else by checks, in manifest order.

    A verdict leads to one new take: it is not about that one. Jobs that were removed from the manifest, or whose task
    a person named, are never submitted.
    """
    cursor = connection.execute(
        "SELECT j.seq, j.job_id, j.attempt, j.submitted_at, "
        "(SELECT count(*) FROM attempts a WHERE a.seq = j.seq AND a.outcome = 'accepted'), c.findings FROM jobs j JOIN specs s USING (seq) "
        "LEFT JOIN checks c ON c.seq = j.seq AND c.attempt = j.attempt "
        "WHERE j.state = ? AND NOT j.is_gone AND s.task_id IS NULL AND j.job_id GLOB ? ORDER BY j.idx",
        (State.SUCCEEDED.value, "*" if glob is None else sql_glob(glob)),
    )
    used = set(connection.execute("SELECT seq, verdict_at FROM retakes"))
    found = []
    for seq, job_id, attempt, submitted_at, takes, findings in cursor.fetchall():
        by_person = verdicts.by_person(job_id, takes=takes, submitted_at=submitted_at)
        given_at = str(verdicts.given_at.get(job_id))
        if by_person is not None and (seq, given_at) not in used:
            verdict_at = given_at if by_person == "reject" else None
        else:
            has_verdict = findings is not None and rows.parse(findings)["verdict"] is not None
            verdict_at = _BY_CHECKS if has_verdict else None
        if verdict_at is not None:
            found.append(Retake(seq, job_id, attempt, verdict_at, assets_of(connection, seq, attempt)))
    return found


def take_path(path: str, attempt: int) -> str:
    """
    Return the path of an asset of an old take; no job id leads to the same.

    >>> take_path("assets/sky.mp4", 1)
    'assets/sky~take1.mp4'
    """
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}~take{attempt}{dot}{suffix}"


def select_retakes(connection: sqlite3.Connection, retakes: Iterable[Retake]) -> None:
    """Write the jobs of a rerun to the temporary table ``selected``."""
    connection.execute("DROP TABLE IF EXISTS temp.selected")
    connection.execute("CREATE TEMP TABLE selected (seq INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO selected VALUES (?)", [(retake.seq,) for retake in retakes])


def requeue_retakes(
    connection: sqlite3.Connection, retakes: Iterable[Retake], draw: Callable[[], float] | None
) -> None:
    """
    Make the jobs pending, and keep what is known of their old takes.

    Args:
        draw: A random draw from [0, 1) for each new seed; None to keep the seeds.
    """
    for retake in retakes:
        seq, attempt = retake.seq, retake.attempt
        connection.execute("INSERT INTO retakes VALUES (?, ?, ?)", (seq, attempt, retake.verdict_at))
        for asset in retake.assets:
            row = rows.asset_row(seq, attempt, replace(asset, path=take_path(asset.path, attempt)))
            connection.execute(f"INSERT OR REPLACE INTO old_assets ({_ASSET}) VALUES ({_PLACES})", row)
        if draw is not None:
            _replace_seed(connection, seq, attempt, int(draw() * _MAX_SEED))
        connection.execute(
            "UPDATE jobs SET state = ?, task_id = NULL, other_task_id = NULL, warnings = NULL WHERE seq = ?",
            (advance(State.SUCCEEDED, Event.RERUN).value, seq),
        )


def _replace_seed(connection: sqlite3.Connection, seq: int, attempt: int, seed: int) -> None:
    """Give a request that names a seed another one; without one, the API draws a new one anyway."""
    (text,) = connection.execute("SELECT request FROM specs WHERE seq = ?", (seq,)).fetchone()
    request = json.loads(text)
    if "seed" not in request or str(request["seed"]) == "-1":
        return
    request["seed"] = str(seed) if isinstance(request["seed"], str) else seed
    connection.execute("INSERT OR IGNORE INTO replaced_requests VALUES (?, ?, ?)", (seq, attempt, text))
    # The digest stays: to the manifest it is the same job.
    connection.execute("UPDATE specs SET request = ? WHERE seq = ?", (rows.canonical(request), seq))
