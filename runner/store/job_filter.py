"""Which jobs of a run a process works on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from msgspec import Struct


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
        return (sql, ()) if self.glob is None else (f"{sql} AND job_id GLOB ?", (self.glob,))

    @property
    def is_restricted(self) -> bool:
        """Whether a person left jobs out."""
        return self.glob is not None or self.chosen


def choose(connection: sqlite3.Connection, job_ids: Iterable[str]) -> None:
    """Write ids to the temporary table ``chosen`` of a connection."""
    connection.execute("DROP TABLE IF EXISTS temp.chosen")
    connection.execute("CREATE TEMP TABLE chosen (job_id TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((job_id,) for job_id in job_ids))
