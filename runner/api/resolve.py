"""Resolve uncertain jobs by what a person found out: their task, or that there is none; or write them off."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from runner.api.journals import journal_of
from runner.api.outputs import Outputs
from runner.api.run_dir import require_run
from runner.api.run_facts import read_facts
from runner.api.run_ledger import settle_ledger
from runner.core.lifecycle import Event, State, sources
from runner.core.model import MAY_HAVE_PAID_TASK, JobRecord
from runner.core.units import format_duration
from runner.core.wire import task_id_error
from runner.disk import AnyPath, read_small
from runner.errors import LedgerError, UsageError
from runner.store import query
from runner.store.database import reading
from runner.store.lock import holder_of
from runner.store.store import Store
from runner.store.transitions import (
    attach_task,
    mark_not_submitted,
    recover,
    uncertain_ids,
    write_off,
)

MIN_AGE_S = 600.0
"""Of an uncertain job with a journal, before a person may say that it was never submitted."""
MAX_FILE_BYTES = 64 * 1024**2


class Resolution(StrEnum):
    """How to resolve uncertain jobs that have no task to name."""

    NOT_SUBMITTED = "not_submitted"
    """The POST made no task: submit the job again."""
    GIVE_UP = "give_up"
    """The job is written off: it fails, and is not submitted again by itself."""


class UnresolvedJob(Struct, frozen=True):
    """A job, or a pattern, that can't be resolved, and why."""

    name: str
    why: str


class ResolveResult(Struct, frozen=True):
    """
    The result of resolving jobs. Either all are resolved, or some are refused and none is.

    Attributes:
        resolved: Ids, in the order in which they were named.
        left: How many jobs are still uncertain.
    """

    resolved: tuple[str, ...]
    refused: tuple[UnresolvedJob, ...]
    left: int


def resolve_tasks(run_dir: AnyPath, tasks: Mapping[str, str]) -> ResolveResult:
    """
    Attach tasks to uncertain jobs, or to jobs that were lost or written off; the next run polls and downloads them.

    Args:
        tasks: Task ids by job id.

    Raises:
        RunDirError: The directory is not a run's, in use, or can't be used.
    """
    with _Resolver(Path(run_dir)) as resolver:
        return resolver.attach_all(tasks)


def resolve_as(run_dir: AnyPath, patterns: Sequence[str], resolution: Resolution) -> ResolveResult:
    """
    Resolve uncertain jobs that have no task to name.

    Args:
        patterns: Ids or shell patterns; each must name an uncertain job.

    Raises:
        RunDirError: As for `resolve_tasks`.
    """
    with _Resolver(Path(run_dir)) as resolver:
        return resolver.resolve_all(patterns, resolution)


def uncertain_jobs(run_dir: AnyPath) -> Iterator[JobRecord]:
    """
    Read the jobs that can be resolved, also while a run is active.

    Raises:
        RunDirError: The directory is not a run's, or can't be used.
    """
    run_dir = Path(run_dir)
    require_run(run_dir)
    # What a dead process left between intent and answer is uncertain too.
    states = {State.UNCERTAIN} if holder_of(run_dir) else {State.UNCERTAIN, State.SUBMITTING}
    with reading(run_dir) as reader:
        yield from query.records_in(reader, states)


def read_tasks(path: Path) -> dict[str, str]:
    """
    Read a CSV file of ``job_id,task_id`` lines; a header, a BOM and blank lines are allowed.

    Below a header a task may be left blank, as in the list that is to be filled in: that job stays uncertain.

    Raises:
        UsageError: It can't be read, or has invalid lines; each is named by its number.
    """
    try:
        content = read_small(path, MAX_FILE_BYTES)
        if len(content) > MAX_FILE_BYTES:
            raise UsageError(
                f"{path} is too large to be a list of tasks", hint="name a file of job_id,task_id lines"
            )
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    tasks: dict[str, str] = {}
    errors: list[str] = []
    has_header = [cell.strip() for cell in text.partition("\n")[0].split(",")] == _HEADER
    lines = csv.reader(text.splitlines(), strict=True)
    try:
        for row in lines:
            if not (has_header and len(row) == len(_HEADER) and not row[1].strip()):
                _read_row(row, lines.line_num, tasks, errors)
    except csv.Error as error:
        errors.append(f"line {lines.line_num}: {error}")
    if errors:
        raise UsageError(
            f"{path} is not a list of tasks, and nothing was resolved: " + "; ".join(errors[:10]),
            hint="write a line for each job: job_id,task_id",
        )
    if not tasks:
        raise UsageError(f"{path} names no jobs", hint="write a line for each job: job_id,task_id")
    return tasks


_HEADER = ["job_id", "task_id"]


def _read_row(row: list[str], number: int, tasks: dict[str, str], errors: list[str]) -> None:
    cells = [cell.strip() for cell in row]
    if not any(cells) or (cells == _HEADER and not tasks):
        return
    if number == 1 and cells != _HEADER and cells[-1].lower() in ("task", "task_id", "task id"):
        errors.append(f"line 1 has the columns {','.join(cells)}; the header is job_id,task_id")
    elif len(cells) != 2 or not all(cells):
        errors.append(f"line {number} is not job_id,task_id")
    elif cells[0] in tasks:
        errors.append(f"line {number} names {cells[0]!r} a second time")
    elif why := task_id_error(cells[1]):
        errors.append(f"line {number}: {why}")
    else:
        tasks[cells[0]] = cells[1]


class _Resolver:
    """A run directory that is open to resolve its jobs; its files are rewritten if any was."""

    def __init__(self, run_dir: Path) -> None:
        require_run(run_dir)
        self._store = Store(run_dir, journal=journal_of(run_dir))
        self._at = time.time()

    def __enter__(self) -> _Resolver:
        self._store.__enter__()
        # What a dead process left between intent and answer is uncertain, and may be resolved too.
        with self._store.transaction() as connection:
            recover(connection, at=self._at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.__exit__(kind, error, trace)

    def attach_all(self, tasks: Mapping[str, str]) -> ResolveResult:
        """Attach each job's task, in one transaction; none if any is refused."""
        reader = self._store.reader
        refused = [UnresolvedJob(job, why) for job in tasks if (why := _not_attachable(reader, job))]
        refused += _claimed(reader, tasks)
        if not refused:
            with self._store.transaction() as connection:
                for job_id, task_id in tasks.items():
                    attach_task(connection, job_id, task_id, at=self._at)
        return self._result(tasks, refused)

    def resolve_all(self, patterns: Sequence[str], resolution: Resolution) -> ResolveResult:
        """Resolve every uncertain job that is named; none if a name matches nothing."""
        found: dict[str, None] = {}
        refused: list[UnresolvedJob] = []
        for pattern in patterns:
            state = _state_of(self._store.reader, pattern)
            # An id comes first: it may contain characters of a pattern.
            job_ids = [pattern] if state is State.UNCERTAIN else uncertain_ids(self._store.reader, [pattern])
            if job_ids:
                found.update(dict.fromkeys(job_ids))
            else:
                why = "matches no uncertain job" if state is None else f"is {state.label}, not uncertain"
                refused.append(UnresolvedJob(pattern, why))
        if resolution is Resolution.NOT_SUBMITTED and self._store.journal is not None:
            refused += self._too_young(found)
        if not refused:
            act = mark_not_submitted if resolution is Resolution.NOT_SUBMITTED else write_off
            with self._store.transaction() as connection:
                for job_id in found:
                    act(connection, job_id)
        return self._result(found, refused)

    def _too_young(self, job_ids: Iterable[str]) -> list[UnresolvedJob]:
        """Refuse jobs that a process which lost its shard may be sending still."""
        why = f"was to be submitted less than {format_duration(MIN_AGE_S)} ago, perhaps by a machine that is cut off: wait"
        return [
            UnresolvedJob(job_id, why)
            for job_id in job_ids
            if (at := query.last_attempt_at(self._store.reader, job_id)) is not None
            and self._at - at < MIN_AGE_S
        ]

    def _result(self, job_ids: Iterable[str], refused: list[UnresolvedJob]) -> ResolveResult:
        if not refused:
            self._write_files()
        left = query.counts(self._store.reader)[State.UNCERTAIN]
        return ResolveResult(() if refused else tuple(job_ids), tuple(refused), left)

    def _write_files(self) -> None:
        facts = read_facts(self._store.reader)
        if facts is None:
            return
        with closing(Outputs(self._store, facts)) as outputs:
            outputs.finish(now_at=self._at)
        # What it can't be told now, the next process of the run tells it.
        with suppress(LedgerError):
            settle_ledger(self._store, facts.settings)


def _state_of(reader: sqlite3.Connection, job_id: str) -> State | None:
    job = query.job(reader, job_id, waiting_since=0.0)
    return None if job is None else job.state


def _not_attachable(reader: sqlite3.Connection, job_id: str) -> str | None:
    job = query.job(reader, job_id, waiting_since=0.0)
    if job is None:
        return "is not a job of this run"
    if job.state not in sources(Event.ATTACHED):
        return f"is {job.state}, not uncertain"
    if job.state is State.FAILED and (job.error is None or job.error.cls not in MAY_HAVE_PAID_TASK):
        return f"failed ({'unknown' if job.error is None else job.error.cls}) without a task to name"
    return None


def _claimed(reader: sqlite3.Connection, tasks: Mapping[str, str]) -> list[UnresolvedJob]:
    """Find tasks that belong to two jobs: one of them would get the other's video."""
    refused = []
    counts = Counter(tasks.values())
    owners = query.job_ids_by_task(reader, tasks.values())
    for job_id, task_id in tasks.items():
        owner = owners.get(task_id, job_id)
        if owner != job_id:
            refused.append(UnresolvedJob(job_id, f"can't have the task {task_id}: it belongs to {owner}"))
        elif counts[task_id] > 1:
            refused.append(
                UnresolvedJob(job_id, f"can't have the task {task_id}: it is named for another job too")
            )
    return refused
