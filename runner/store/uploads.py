"""What ``run.db`` knows of uploads, and which jobs may need some."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from runner.core.uploads import Upload, UploadState
from runner.store.job_filter import JobFilter
from runner.store.rows import has_table

_WITH_FILES = "state = 'pending' AND has_files AND NOT is_gone AND specs.task_id IS NULL"


def read_uploads(connection: sqlite3.Connection, target: str) -> dict[str, Upload]:
    """Read the uploads to a target, by digest; none from a file of an earlier version."""
    if not has_table(connection, "uploads"):
        return {}
    rows = connection.execute(
        "SELECT digest, state, address, expires_at FROM uploads WHERE target = ?", (target,)
    )
    return {
        digest: Upload(digest, target, UploadState(state), address, expires_at)
        for digest, state, address, expires_at in rows
    }


def requests_with_files(connection: sqlite3.Connection, scope: JobFilter) -> Iterator[str]:
    """Read the requests of the jobs to submit that have local files, in manifest order."""
    where, values = scope.condition()
    for (request,) in connection.execute(
        f"SELECT specs.request FROM jobs JOIN specs USING (seq) WHERE {_WITH_FILES} {where} ORDER BY idx",
        values,
    ):
        yield request
