"""Queries of ``run.db`` about the files of jobs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from runner.core.model import Asset, Job
from runner.store import rows


def delivered_assets(connection: sqlite3.Connection) -> Iterator[tuple[str, Asset]]:
    """Read the assets of the jobs that succeeded, each with its job's id, in manifest order."""
    cursor = connection.execute(
        "SELECT j.job_id, a.* FROM jobs j JOIN assets a ON a.seq = j.seq AND a.attempt = j.attempt "
        "WHERE j.state = 'succeeded' ORDER BY j.idx"
    )
    for job_id, *asset in cursor:
        yield job_id, rows.read_asset(asset, {})


def delivered_files(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """Read the path and size in bytes of each file of the jobs that succeeded, with its job's id, in manifest order."""
    yield from connection.execute(
        "SELECT j.job_id, a.path, a.bytes FROM jobs j JOIN assets a ON a.seq = j.seq AND a.attempt = j.attempt "
        "WHERE j.state = 'succeeded' ORDER BY j.idx"
    )


def count_assets(connection: sqlite3.Connection) -> int:
    """Count the files of all jobs."""
    return int(connection.execute("SELECT count(*) FROM assets").fetchone()[0])


def asset_paths(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the paths of the files of all jobs, in no particular order."""
    return chain.from_iterable(connection.execute("SELECT path FROM assets"))


def asset_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the sizes of all assets in bytes, by path."""
    sizes = dict(connection.execute("SELECT path, bytes FROM assets"))
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'old_assets'").fetchone():
        sizes.update(connection.execute("SELECT path, bytes FROM old_assets"))
    return sizes


def assets_of(connection: sqlite3.Connection, job: Job) -> tuple[Asset, ...]:
    """Read the assets of a job's current attempt, the video first."""
    cursor = connection.execute(
        "SELECT * FROM assets WHERE seq = ? AND attempt = ? ORDER BY kind DESC", (job.seq, job.attempt)
    )
    return tuple(rows.read_asset(row, {}) for row in cursor)


def parts_of(connection: sqlite3.Connection, job: Job) -> dict[str, Mapping[str, Any]]:
    """Read what is known of the unfinished downloads of a job's current attempt, by kind of asset."""
    cursor = connection.execute(
        "SELECT kind, facts FROM parts WHERE seq = ? AND attempt = ?", (job.seq, job.attempt)
    )
    return {kind: json.loads(facts) for kind, facts in cursor}
