"""
The manifest's jobs into the store, whole or not at all.

A job is its id and the digest of its request. What is in the store and unchanged
is left as it is, so that the same manifest again writes next to nothing; moving,
inserting or commenting jobs changes no job.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from enum import StrEnum
from itertools import islice
from typing import Any

from msgspec import Struct, field

from runner.core.lifecycle import Event, State, advance, sources
from runner.core.model import Attempt, JobSpec, Json, has_files
from runner.errors import JobsChanged
from runner.store import rows
from runner.store.transitions import attach_task

_BATCH = 500
_SHOWN = 10

_INSERT_JOBS = rows.BulkStatement(
    "INSERT OR IGNORE INTO jobs (seq, job_id, idx, model, digest, state, has_files, timeout_s, attempt, task_id, "
    "submitted_at) VALUES ",
    11,
)
_INSERT_SPECS = rows.BulkStatement("INSERT INTO specs VALUES ", 9)


class OnChanged(StrEnum):
    """What to do with a job whose request is not the one that already ran under its id."""

    ERROR = "error"
    KEEP = "keep"
    RERUN = "rerun"


class Change(Struct, frozen=True):
    """A job whose request is another than the one in the store."""

    job_id: str
    state: State
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.job_id} ({self.state}): {', '.join(self.fields)}"


class SyncReport(Struct):
    """
    How a manifest compares with the store; counts of jobs.

    Attributes:
        changed: Jobs that were submitted once, with another request than now; the first few in full.
        replaced: Jobs that were never submitted, and take the manifest's new request.
        gone: Jobs that left the manifest; they are never submitted, but what was paid for is still fetched.
    """

    new: int = 0
    same: int = 0
    replaced: int = 0
    changed: int = 0
    gone: int = 0
    changes: list[Change] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        """Jobs in the manifest."""
        return self.new + self.same + self.replaced + self.changed


def sync(
    connection: sqlite3.Connection, specs: Iterable[JobSpec], *, on_changed: OnChanged, at: float
) -> SyncReport:
    """
    Bring the store up to the manifest, within the transaction that the caller has open.

    Raises:
        JobsChanged: Jobs changed that already ran, and ``on_changed`` does not say what to do; or they are
            under way or in doubt, so that another request can't take their place.
    """
    report = SyncReport()
    seen = bytearray(1 + (connection.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0))
    # Where there was nothing, nothing is looked for: two jobs of one id are the manifest's problem.
    is_new = len(seen) == 1
    apply = _SyncWriter(connection, report, on_changed, at)
    stream = iter(specs)
    while batch := list(islice(stream, _BATCH)):
        known = {} if is_new else _known(connection, [spec.job_id for spec in batch])
        for spec in batch:
            row = known.get(spec.job_id)
            if row is None:
                apply.insert(spec)
                continue
            if row.seq < len(seen):
                seen[row.seq] = 1
            apply.update(spec, row)
        apply.flush()
    _refuse_changes(report, on_changed, apply.stuck)
    report.gone = _mark_gone(connection, seen)
    return report


def compare(
    connection: sqlite3.Connection,
    specs: Iterable[JobSpec],
    *,
    each: Callable[[JobSpec, str], None],
    gone: Callable[[State], None],
) -> SyncReport:
    """
    Say how a manifest compares with the store, and write nothing.

    A run may go on at the same time. No transaction spans the comparison, since on some
    file systems that would keep the run from writing.

    Args:
        each: Called for every job of the manifest with ``new``, ``changed``, ``replaced`` or its state.
        gone: Called with the state of every job that is not in the manifest.
    """
    report = SyncReport()
    seen = bytearray(1 + (connection.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0))
    stream = iter(specs)
    while batch := list(islice(stream, _BATCH)):
        known = _known(connection, [spec.job_id for spec in batch])
        for spec in batch:
            row = known.get(spec.job_id)
            if row is None:
                report.new += 1
                each(spec, "new")
                continue
            # A job that a run took in meanwhile is not among those that could be gone.
            if row.seq < len(seen):
                seen[row.seq] = 1
            if row.digest == spec.digest:
                report.same += 1
                each(spec, row.state.value)
            elif row.was_never_sent:
                report.replaced += 1
                each(spec, "replaced")
            else:
                _note_change(report, spec, row)
                each(spec, "changed")
    for seq, state in connection.execute("SELECT seq, state FROM jobs WHERE seq < ?", (len(seen),)):
        if not seen[seq]:
            report.gone += 1
            gone(State(state))
    return report


class _StoredJob(Struct, frozen=True):
    """What the store has of a job that the manifest names."""

    seq: int
    index: int
    digest: str
    state: State
    attempt: int
    is_gone: bool
    timeout_s: float | None
    task_id: str | None
    request: str
    side: tuple[Any, ...]

    @property
    def was_never_sent(self) -> bool:
        """Whether nothing can have been paid for it, so that its request may change freely."""
        return self.state is State.PENDING and self.attempt == 0


_COUNTED = (
    "(SELECT count(*) FROM attempts a WHERE a.seq = jobs.seq "
    "AND a.outcome IN ('accepted', 'attached', 'rejected', 'uncertain'))"
)
"""Attempts that came to something; a job that was only throttled may still be edited freely."""


def _known(connection: sqlite3.Connection, job_ids: list[str]) -> dict[str, _StoredJob]:
    found = connection.execute(
        f"SELECT job_id, seq, idx, digest, state, {_COUNTED}, is_gone, timeout_s, jobs.task_id, request, metadata, "
        "schema, s.warnings, file, line, col, s.task_id FROM jobs JOIN specs s USING (seq) "
        "WHERE job_id IN (SELECT value FROM json_each(?))",
        (json.dumps(job_ids),),
    )
    return {
        row[0]: _StoredJob(
            row[1],
            row[2],
            row[3],
            State(row[4]),
            row[5],
            bool(row[6]),
            row[7],
            row[8],
            row[9],
            tuple(row[10:]),
        )
        for row in found
    }


class _SyncWriter:
    """The writes of one sync, gathered and made in batches."""

    def __init__(
        self, connection: sqlite3.Connection, report: SyncReport, on_changed: OnChanged, at: float
    ) -> None:
        self._connection = connection
        self._report = report
        self._on_changed = on_changed
        self._at = at
        self._next = 1 + (connection.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0)
        self._jobs: list[tuple[Any, ...]] = []
        self._specs: list[tuple[Any, ...]] = []
        self._attempts: list[tuple[Any, ...]] = []
        self.stuck: list[Change] = []

    def insert(self, spec: JobSpec) -> None:
        """Take a job in that the store does not have."""
        seq, self._next = self._next, self._next + 1
        adopted = spec.task_id is not None
        state = advance(State.PENDING, Event.ATTACHED) if adopted else State.PENDING
        self._jobs.append(
            (
                seq,
                spec.job_id,
                spec.index,
                spec.model,
                spec.digest,
                state.value,
                has_files(spec.request),
                spec.timeout_s,
                int(adopted),
                spec.task_id,
                self._at if adopted else None,
            )
        )
        self._specs.append((seq, rows.canonical(spec.request), *_side(spec)))
        if spec.task_id is not None:
            self._attempts.append(rows.attempt_row(seq, Attempt(1, self._at, "attached", spec.task_id)))
        self._report.new += 1

    def update(self, spec: JobSpec, row: _StoredJob) -> None:
        """Bring a job that the store has up to the manifest."""
        is_replaced = row.digest != spec.digest and self._take_request(spec, row)
        if row.digest == spec.digest:
            self._report.same += 1
            if has_files(spec.request):
                # The same content may have moved to another path.
                self._write_request(spec, row)
        if (row.index, row.is_gone, row.timeout_s) != (spec.index, False, spec.timeout_s):
            self._connection.execute(
                "UPDATE jobs SET idx = ?, is_gone = 0, timeout_s = ? WHERE seq = ?",
                (spec.index, spec.timeout_s, row.seq),
            )
        side = _side(spec)
        if row.side != side:
            self._connection.execute(
                "UPDATE specs SET metadata = ?, schema = ?, warnings = ?, file = ?, line = ?, col = ?, "
                "task_id = ? WHERE seq = ?",
                (*side, row.seq),
            )
        # A failed job keeps its end until it is given another task, or is wanted again.
        has_met_its_end = row.state is State.FAILED and row.task_id == spec.task_id and not is_replaced
        if spec.task_id is not None and not has_met_its_end:
            attach_task(self._connection, spec.job_id, spec.task_id, at=self._at)

    def flush(self) -> None:
        """Write what was gathered. A second job of one id is the manifest's problem, and is reported there."""
        rows.insert_rows(self._connection, _INSERT_JOBS, self._jobs)
        rows.insert_rows(self._connection, _INSERT_SPECS, self._specs)
        self._connection.executemany(rows.SAVE_ATTEMPT, self._attempts)
        self._jobs.clear()
        self._specs.clear()
        self._attempts.clear()

    def _take_request(self, spec: JobSpec, row: _StoredJob) -> bool:
        """Give a job another request where that is allowed, and say whether it was."""
        if row.was_never_sent:
            self._report.replaced += 1
            self._replace(spec, row, State.PENDING)
            return True
        change = _note_change(self._report, spec, row)
        if self._on_changed is not OnChanged.RERUN:
            return False
        if row.state not in sources(Event.RERUN):
            self.stuck.append(change)
            return False
        self._replace(spec, row, advance(row.state, Event.RERUN))
        return True

    def _replace(self, spec: JobSpec, row: _StoredJob, state: State) -> None:
        self._connection.execute(
            "UPDATE jobs SET digest = ?, model = ?, state = ?, has_files = ?, task_id = NULL, "
            "other_task_id = NULL WHERE seq = ?",
            (spec.digest, spec.model, state.value, has_files(spec.request), row.seq),
        )
        self._write_request(spec, row)

    def _write_request(self, spec: JobSpec, row: _StoredJob) -> None:
        self._connection.execute(
            "UPDATE specs SET request = ? WHERE seq = ?", (rows.canonical(spec.request), row.seq)
        )


def _note_change(report: SyncReport, spec: JobSpec, row: _StoredJob) -> Change:
    change = Change(spec.job_id, row.state, changed_fields(json.loads(row.request), spec.request))
    report.changed += 1
    if len(report.changes) < _SHOWN:
        report.changes.append(change)
    return change


def changed_fields(old: Json, new: Json) -> tuple[str, ...]:
    """
    Name the fields of a request that differ, with short values in full.

    >>> changed_fields({"seconds": "5", "seed": 1}, {"seconds": "8", "seed": 1})
    ("seconds: '5' -> '8'",)
    """
    fields = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        before, after = (_short(side, name) for side in (old, new))
        fields.append(f"{name}: {before} -> {after}")
    return tuple(fields)


def _short(request: Json, name: str) -> str:
    if name not in request:
        return "(absent)"
    text = repr(request[name])
    return text if len(text) <= 40 else f"{text[:37]}..."


def _refuse_changes(report: SyncReport, on_changed: OnChanged, stuck: list[Change]) -> None:
    if stuck:
        raise JobsChanged(
            f"{_jobs(len(stuck))} changed while a task for it may exist: " + _listed(stuck, len(stuck)),
            hint="let them end first (`runner resume`), or settle them (`runner resolve`)",
        )
    if report.changed and on_changed is OnChanged.ERROR:
        raise JobsChanged(
            f"{_jobs(report.changed)} changed since it was submitted: "
            + _listed(report.changes, report.changed),
            hint="give a changed job a new id; or --on-changed keep (leave them as they ran) or "
            "--on-changed rerun (submit, and pay for, them again)",
        )


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _listed(changes: list[Change], count: int) -> str:
    shown = "; ".join(str(change) for change in changes[:_SHOWN])
    return shown if count <= _SHOWN else f"{shown}; and {count - _SHOWN} more"


def _mark_gone(connection: sqlite3.Connection, seen: bytearray) -> int:
    missing = ((seq,) for seq in range(1, len(seen)) if not seen[seq])
    return connection.executemany("UPDATE jobs SET is_gone = 1 WHERE seq = ?", missing).rowcount


def _side(spec: JobSpec) -> tuple[Any, ...]:
    source = spec.source
    return (
        rows.canonical(spec.metadata) if spec.metadata else "{}",
        spec.schema,
        rows.canonical(spec.warnings) if spec.warnings else "[]",
        source.file,
        source.line,
        source.column,
        spec.task_id,
    )
