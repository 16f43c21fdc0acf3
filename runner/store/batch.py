"""The changes of one commit, as rows: what a transaction writes, and what a journal repeats."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from runner.core.lifecycle import State
from runner.store import rows
from runner.store.costs import SAVE_COSTS
from runner.store.rows import Row


class Batch(Struct):
    """
    The changes of one commit, and who waits for it.

    The row of a job is always the whole row, so that a batch can be applied again: the same batches in the same order
    lead to the same jobs.

    Attributes:
        is_journaled: Whether the journal has it.
    """

    number: int
    has_changes: bool = False
    is_journaled: bool = False
    intents: dict[int, Row] = field(default_factory=dict)
    jobs: dict[int, Row] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Row] = field(default_factory=dict)
    assets: list[Row] = field(default_factory=list)
    parts: dict[tuple[int, str], Row] = field(default_factory=dict)
    dropped_parts: list[tuple[int, str]] = field(default_factory=list)
    old_assets: list[tuple[int, int]] = field(default_factory=list)
    answers: dict[tuple[int, int], Row] = field(default_factory=dict)
    usages: dict[tuple[int, int], Row] = field(default_factory=dict)
    tracks: list[Row] = field(default_factory=list)
    urls: list[Row] = field(default_factory=list)
    checks: list[Row] = field(default_factory=list)
    uploads: dict[tuple[str, str], Row] = field(default_factory=dict)
    costs: dict[tuple[int, int], Row] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def add_job(self, job: Row) -> None:
        """Add a job's row."""
        seq = job[-1]
        if job[0] == State.SUBMITTING:
            # After what the batch has of the job already: its last attempt may have ended in the same moment.
            self.intents[seq] = job
        else:
            self.intents.pop(seq, None)
            self.jobs[seq] = job

    def apply(self, connection: sqlite3.Connection) -> int:
        """Write the rows in the transaction that the caller has open; return how many intents found a pending job."""
        rows.insert_rows(connection, rows.SAVE_JOBS, list(self.jobs.values()))
        before = connection.total_changes
        rows.insert_rows(connection, rows.SAVE_INTENTS, list(self.intents.values()))
        intents = connection.total_changes - before
        rows.insert_rows(connection, rows.SAVE_ATTEMPTS, list(self.attempts.values()))
        connection.executemany(rows.SAVE_PART, self.parts.values())
        connection.executemany(rows.SAVE_ANSWER, self.answers.values())
        connection.executemany(rows.SAVE_USAGE, self.usages.values())
        connection.executemany(rows.SAVE_TRACKS, self.tracks)
        connection.executemany(rows.SAVE_URLS, self.urls)
        connection.executemany(rows.SAVE_CHECKS, self.checks)
        connection.executemany(rows.SAVE_UPLOAD, self.uploads.values())
        rows.insert_rows(connection, SAVE_COSTS, list(self.costs.values()))
        rows.insert_rows(connection, rows.DROP_PARTS, self.dropped_parts)
        connection.executemany(rows.DROP_OLD_ASSETS, self.old_assets)
        rows.insert_rows(connection, rows.SAVE_ASSETS, self.assets)
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", self.meta.items())
        return intents

    def to_json(self) -> dict[str, Any]:
        """Return the changes as JSON, without what is empty and without downloads that are under way."""
        values = {
            "intents": list(self.intents.values()),
            "jobs": list(self.jobs.values()),
            "attempts": list(self.attempts.values()),
            "assets": self.assets,
            "old_assets": self.old_assets,
            "answers": list(self.answers.values()),
            "usages": list(self.usages.values()),
            "tracks": self.tracks,
            "urls": self.urls,
            "checks": self.checks,
            "uploads": list(self.uploads.values()),
            "costs": list(self.costs.values()),
            "meta": self.meta,
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Batch:
        """Return the batch that `to_json` described."""
        return cls(
            number=0,
            intents={row[-1]: row for row in values.get("intents", ())},
            jobs={row[-1]: row for row in values.get("jobs", ())},
            attempts={(row[0], row[1]): row for row in values.get("attempts", ())},
            assets=values.get("assets", []),
            old_assets=values.get("old_assets", []),
            answers={(row[0], row[1]): row for row in values.get("answers", ())},
            usages={(row[0], row[1]): row for row in values.get("usages", ())},
            tracks=values.get("tracks", []),
            urls=values.get("urls", []),
            checks=values.get("checks", []),
            uploads={(row[0], row[1]): row for row in values.get("uploads", ())},
            costs={(row[0], row[1]): row for row in values.get("costs", ())},
            meta=values.get("meta", {}),
        )
