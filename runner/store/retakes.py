"""New takes of jobs that succeeded: what is rejected, what is kept of the old take, and what is submitted again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable

from msgspec import Struct

from runner.core.lifecycle import Event, State, advance
from runner.core.model import Asset, Verdicts
from runner.store import rows
from runner.store.takes import texts_by_attempt
from runner.store.transitions import RerunPlan
from runner.store.work_list import sql_glob

_BY_CHECKS = "checks"
_MAX_SEED = 2**31 - 1
"""The largest that every model takes."""


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
            assets = connection.execute(
                "SELECT * FROM assets WHERE seq = ? AND attempt = ? ORDER BY kind DESC", (seq, attempt)
            )
            urls = texts_by_attempt(connection, "asset_urls", json.dumps([seq]))
            kept = tuple(rows.read_asset(row, {}, urls=urls) for row in assets)
            found.append(Retake(seq, job_id, attempt, verdict_at, kept))
    return found


def take_path(path: str, attempt: int) -> str:
    """
    Return the path of an asset of an old take; no job id leads to the same.

    >>> take_path("assets/sky.mp4", 1)
    'assets/sky~take1.mp4'
    """
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}~take{attempt}{dot}{suffix}"


def select_retakes(connection: sqlite3.Connection, retakes: Iterable[Retake]) -> RerunPlan:
    """Write the jobs of a rerun to the temporary table ``selected``, and count them."""
    connection.execute("DROP TABLE IF EXISTS temp.selected")
    connection.execute("CREATE TEMP TABLE selected (seq INTEGER PRIMARY KEY)")
    count = connection.executemany(
        "INSERT INTO selected VALUES (?)", [(retake.seq,) for retake in retakes]
    ).rowcount
    return RerunPlan(to_submit=max(0, count))


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
        connection.executemany(
            "INSERT OR REPLACE INTO old_assets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    seq,
                    attempt,
                    asset.kind.value,
                    take_path(asset.path, attempt),
                    asset.bytes,
                    asset.sha256,
                    asset.content_type,
                    asset.width,
                    asset.height,
                    asset.duration_s,
                )
                for asset in retake.assets
            ],
        )
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
