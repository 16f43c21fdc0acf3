"""
Bring the jobs of a manifest into the store, all or none.

A job is identified by its id and the digest of its request. Jobs that the store has unchanged are left as they are, so
the same manifest again writes almost nothing; moving, inserting or commenting jobs changes none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Container, Iterable
from itertools import islice
from typing import Any

from msgspec import Struct, field

from runner.core.lifecycle import Event, State, advance, sources
from runner.core.model import FILE_KEY, Attempt, Failure, FailureClass, JobSpec, Json, OnChanged, has_files
from runner.core.units import format_count
from runner.errors import JobsChanged, UsageError
from runner.schema.wording import changed_fields
from runner.store import rows
from runner.store.transitions import attach_task

_BATCH = 500
_MAX_LISTED = 10

_INSERT_JOBS = rows.BulkStatement(
    "INSERT OR IGNORE INTO jobs (seq, job_id, idx, model, digest, state, has_files, timeout_s, attempt, task_id, "
    "submitted_at) VALUES ",
    11,
)
_INSERT_SPECS = rows.BulkStatement("INSERT INTO specs VALUES ", 9)


class Change(Struct, frozen=True):
    """A job whose request differs from the one in the store."""

    job_id: str
    state: State
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.job_id} ({self.state}): {', '.join(self.fields)}"


class SyncReport(Struct):
    """
    How a manifest differs from the store; counts of jobs.

    Attributes:
        replaced: Jobs that were never submitted, also because they were invalid, and get the manifest's new request.
        changed: Jobs that were submitted with another request than the manifest's.
        gone: Jobs removed from the manifest; they are never submitted, but what was paid for is still downloaded.
        changes: The first few of ``changed``.
        not_replaceable: Those of ``changed`` that may have a task for the old request, which has not ended.
        not_replaceable_changes: The first few of ``not_replaceable``.
    """

    new: int = 0
    same: int = 0
    replaced: int = 0
    changed: int = 0
    gone: int = 0
    changes: list[Change] = field(default_factory=list)
    not_replaceable: int = 0
    not_replaceable_changes: list[Change] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        """Number of jobs in the manifest."""
        return self.new + self.same + self.replaced + self.changed

    def refusal(self, on_changed: OnChanged) -> JobsChanged | None:
        """Return the error for changed jobs with which a run can't begin, or None."""
        if on_changed is OnChanged.RERUN and self.not_replaceable:
            return JobsChanged(
                f"{format_count(self.not_replaceable, 'job')} changed although a task for the old request may exist: "
                + _listed(self.not_replaceable_changes, self.not_replaceable),
                hint="finish them first (`runner resume DIR`), or resolve them (`runner resolve DIR`)",
            )
        if on_changed is OnChanged.ERROR and self.changed:
            return JobsChanged(
                f"{format_count(self.changed, 'job')} changed since submission: "
                + _listed(self.changes, self.changed),
                hint="give a changed job a new id; or use --on-changed keep (keep the old results) or "
                "--on-changed rerun (submit them again, and pay again)",
            )
        return None


def sync(
    connection: sqlite3.Connection,
    specs: Iterable[JobSpec],
    *,
    on_changed: OnChanged,
    at: float,
    invalid: Container[str] = (),
) -> SyncReport:
    """
    Update the store to the manifest, in the caller's transaction; an invalid job replaces no request that was sent.

    Raises:
        UsageError: The manifest names a task that another job of the run has.
        JobsChanged: Jobs changed that already ran, and ``on_changed`` does not say what to do; or they are
            in progress or uncertain, so that their request can't be replaced.
    """
    report = SyncReport()
    seen = bytearray(1 + _last_seq(connection))
    # In a new store there is nothing to look up: two jobs with one id are reported with the manifest.
    is_new = len(seen) == 1
    writer = _SyncWriter(connection, report, on_changed, invalid, at, next_seq=len(seen))
    stream = iter(specs)
    while batch := list(islice(stream, _BATCH)):
        stored = {} if is_new else _stored_jobs(connection, [spec.job_id for spec in batch])
        for spec in batch:
            job = stored.get(spec.job_id)
            if job is None:
                writer.insert(spec)
                continue
            if job.seq < len(seen):
                seen[job.seq] = 1
            writer.update(spec, job)
        writer.flush()
    if refusal := report.refusal(on_changed):
        raise refusal
    if writer.has_named_tasks:
        _refuse_shared_tasks(connection)
    report.gone = _mark_gone(connection, seen)
    return report


def _refuse_shared_tasks(connection: sqlite3.Connection) -> None:
    """Raise if a job names another job's task: one of the two would get the other's video."""
    row = connection.execute(
        "SELECT mine.job_id, s.task_id, other.job_id FROM specs s JOIN jobs mine USING (seq) "
        "JOIN attempts a ON a.task_id = s.task_id AND a.seq <> s.seq JOIN jobs other ON other.seq = a.seq "
        "WHERE s.task_id IS NOT NULL ORDER BY mine.seq DESC LIMIT 1"
    ).fetchone()
    if row is not None:
        job_id, task_id, owner = row
        raise UsageError(
            f"the job {job_id!r} can't have the task {task_id}: it belongs to {owner!r}",
            hint="a task makes one video, of one job: correct or remove task_id in the manifest",
        )


def fail_invalid(
    connection: sqlite3.Connection, invalid: Iterable[tuple[JobSpec, str]], *, at: float
) -> None:
    """Make the invalid jobs of a manifest, which `sync` has saved, failed, unless something was sent for their request."""
    cls = FailureClass.INVALID_REQUEST
    connection.executemany(
        # Without a digest, any valid request is another one, and makes the job pending again.
        f"UPDATE jobs SET state = 'failed', digest = '', error_class = '{cls.value}', error = ?, "
        "finished_at = coalesce(finished_at, ?) "
        f"WHERE job_id = ? AND digest = ? AND (state = 'pending' OR state = 'failed' AND {_ATTEMPTS} = 0)",
        [(rows.failure_text(Failure(cls, why[:500])), at, spec.job_id, spec.digest) for spec, why in invalid],
    )


def compare(
    connection: sqlite3.Connection,
    specs: Iterable[JobSpec],
    *,
    each: Callable[[JobSpec, str, State | None], None],
    gone: Callable[[State], None],
) -> SyncReport:
    """
    Compare a manifest with the store, and write nothing.

    A run may be active at the same time. The comparison is not one transaction, because on some file systems
    that would prevent the run from writing.

    Args:
        each: Called for every job of the manifest with ``new``, ``same``, ``changed`` or ``replaced``, and its state.
        gone: Called with the state of every job that is not in the manifest.
    """
    report = SyncReport()
    seen = bytearray(1 + _last_seq(connection))
    stream = iter(specs)
    while batch := list(islice(stream, _BATCH)):
        stored = _stored_jobs(connection, [spec.job_id for spec in batch])
        for spec in batch:
            job = stored.get(spec.job_id)
            if job is None:
                report.new += 1
                each(spec, "new", None)
                continue
            # A job that a run inserted in the meantime can't be gone.
            if job.seq < len(seen):
                seen[job.seq] = 1
            if job.digest == spec.digest:
                report.same += 1
                each(spec, "same", job.state)
            elif job.was_never_sent:
                report.replaced += 1
                each(spec, "replaced", job.state)
            else:
                _record_change(report, spec, job)
                each(spec, "changed", job.state)
    for seq, state in connection.execute("SELECT seq, state FROM jobs WHERE seq < ?", (len(seen),)):
        if not seen[seq]:
            report.gone += 1
            gone(State(state))
    return report


class _StoredJob(Struct, frozen=True):
    """A job of the manifest as the store has it."""

    seq: int
    index: int
    digest: str
    state: State
    attempts: int
    is_gone: bool
    timeout_s: float | None
    task_id: str | None
    request: str
    details: tuple[Any, ...]

    @property
    def was_never_sent(self) -> bool:
        """Whether nothing can have been paid for it, so that its request may be changed."""
        was_begun = self.attempts > 0 or self.task_id is not None
        return self.state in (State.PENDING, State.FAILED) and not was_begun


_ATTEMPTS = (
    "(SELECT count(*) FROM attempts a WHERE a.seq = jobs.seq "
    "AND a.outcome IN ('accepted', 'attached', 'rejected', 'uncertain'))"
)
"""Attempts that were not merely throttled or not sent: without any, the job may still be edited."""


def _last_seq(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0


def _stored_jobs(connection: sqlite3.Connection, job_ids: list[str]) -> dict[str, _StoredJob]:
    cursor = connection.execute(
        f"SELECT job_id, seq, idx, digest, state, {_ATTEMPTS}, is_gone, timeout_s, jobs.task_id, request, metadata, "
        "schema, s.warnings, file, line, col, s.task_id FROM jobs JOIN specs s USING (seq) "
        "WHERE job_id IN (SELECT value FROM json_each(?))",
        (json.dumps(job_ids),),
    )
    return {
        job_id: _StoredJob(
            seq, idx, digest, State(state), sent, bool(is_gone), timeout_s, task_id, request, tuple(details)
        )
        for job_id, seq, idx, digest, state, sent, is_gone, timeout_s, task_id, request, *details in cursor
    }


class _SyncWriter(Struct):
    """Writes the jobs of one sync in batches."""

    connection: sqlite3.Connection
    report: SyncReport
    on_changed: OnChanged
    invalid: Container[str]
    at: float
    next_seq: int
    has_named_tasks: bool = False
    _jobs: list[tuple[Any, ...]] = []
    _specs: list[tuple[Any, ...]] = []
    _attempts: list[tuple[Any, ...]] = []

    def insert(self, spec: JobSpec) -> None:
        """Insert a job that the store does not have."""
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        has_task = spec.task_id is not None
        state = advance(State.PENDING, Event.ATTACHED) if has_task else State.PENDING
        request = rows.canonical(spec.request)
        self._jobs.append(
            (
                seq,
                spec.job_id,
                spec.index,
                spec.model,
                spec.digest,
                state.value,
                # Few requests have a file: one search of the text is faster than a look at each value.
                FILE_KEY in request and has_files(spec.request),
                spec.timeout_s,
                int(has_task),
                spec.task_id,
                self.at if has_task else None,
            )
        )
        self._specs.append((seq, request, *_details(spec)))
        if spec.task_id is not None:
            self.has_named_tasks = True
            self._attempts.append(rows.attempt_row(seq, Attempt(1, self.at, "attached", spec.task_id)))
        self.report.new += 1

    def update(self, spec: JobSpec, job: _StoredJob) -> None:
        """Update a job that the store has to the manifest."""
        is_replaced = job.digest != spec.digest and self._replace_if_allowed(spec, job)
        if job.digest == spec.digest:
            self.report.same += 1
            if has_files(spec.request):
                # A file with the same content may have another path now.
                self._write_request(_with_seed_of(job, spec), job)
        if (job.index, job.is_gone, job.timeout_s) != (spec.index, False, spec.timeout_s):
            self.connection.execute(
                "UPDATE jobs SET idx = ?, is_gone = 0, timeout_s = ? WHERE seq = ?",
                (spec.index, spec.timeout_s, job.seq),
            )
        details = _details(spec)
        if job.details != details:
            self.connection.execute(
                "UPDATE specs SET metadata = ?, schema = ?, warnings = ?, file = ?, line = ?, col = ?, "
                "task_id = ? WHERE seq = ?",
                (*details, job.seq),
            )
        # A failed job remains failed until the manifest names another task, or it is rerun.
        remains_failed = job.state is State.FAILED and job.task_id == spec.task_id and not is_replaced
        if spec.task_id is not None and not remains_failed:
            self.has_named_tasks = True
            attach_task(self.connection, spec.job_id, spec.task_id, at=self.at)

    def flush(self) -> None:
        """Write the jobs that were inserted. A second job with the same id is ignored: reading the manifest reports it."""
        rows.insert_rows(self.connection, _INSERT_JOBS, self._jobs)
        rows.insert_rows(self.connection, _INSERT_SPECS, self._specs)
        self.connection.executemany(rows.SAVE_ATTEMPT, self._attempts)
        self._jobs.clear()
        self._specs.clear()
        self._attempts.clear()

    def _replace_if_allowed(self, spec: JobSpec, job: _StoredJob) -> bool:
        if job.was_never_sent:
            self.report.replaced += 1
            self._replace(spec, job, State.PENDING)
            return True
        _record_change(self.report, spec, job)
        is_kept = self.on_changed is not OnChanged.RERUN or spec.job_id in self.invalid
        if is_kept or job.state not in sources(Event.RERUN):
            return False
        self._replace(spec, job, advance(job.state, Event.RERUN))
        return True

    def _replace(self, spec: JobSpec, job: _StoredJob, state: State) -> None:
        # An old video stays until there is a new one, and so does the request that made it.
        self.connection.execute(
            "INSERT OR IGNORE INTO replaced_requests SELECT seq, attempt, ? FROM assets WHERE seq = ?",
            (job.request, job.seq),
        )
        self.connection.execute(
            "UPDATE jobs SET digest = ?, model = ?, state = ?, has_files = ?, task_id = NULL, "
            "other_task_id = NULL WHERE seq = ?",
            (spec.digest, spec.model, state.value, has_files(spec.request), job.seq),
        )
        self._write_request(spec.request, job)

    def _write_request(self, request: Json, job: _StoredJob) -> None:
        self.connection.execute(
            "UPDATE specs SET request = ? WHERE seq = ?", (rows.canonical(request), job.seq)
        )


def _with_seed_of(job: _StoredJob, spec: JobSpec) -> Json:
    """Return the manifest's request with the seed that a new take of an unchanged job has, if it got another one."""
    stored = json.loads(job.request)
    return {**spec.request, "seed": stored["seed"]} if "seed" in stored else spec.request


def _record_change(report: SyncReport, spec: JobSpec, job: _StoredJob) -> None:
    change = Change(spec.job_id, job.state, changed_fields(json.loads(job.request), spec.request))
    report.changed += 1
    report.changes = [*report.changes, change][:_MAX_LISTED]
    if job.state not in sources(Event.RERUN):
        report.not_replaceable += 1
        report.not_replaceable_changes = [*report.not_replaceable_changes, change][:_MAX_LISTED]


def _listed(changes: list[Change], count: int) -> str:
    listed = "; ".join(map(str, changes[:_MAX_LISTED]))
    return listed if count <= _MAX_LISTED else f"{listed}; and {count - _MAX_LISTED} more"


def _mark_gone(connection: sqlite3.Connection, seen: bytearray) -> int:
    missing = ((seq,) for seq in range(1, len(seen)) if not seen[seq])
    return connection.executemany("UPDATE jobs SET is_gone = 1 WHERE seq = ?", missing).rowcount


def _details(spec: JobSpec) -> tuple[Any, ...]:
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
