"""Settle jobs in doubt by a person's word: name their task, say that there is none, or let them be."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from runner.api import run_facts
from runner.api.outputs import Outputs
from runner.api.run_dir import require_run
from runner.api.simulate import SIMULATED
from runner.core.lifecycle import Event, State, sources
from runner.core.model import FailureClass
from runner.core.settings import DEFAULT_BASE_URL
from runner.core.wire import task_id_error
from runner.errors import UsageError
from runner.store import query
from runner.store.store import Store
from runner.store.transitions import attach_task, mark_not_submitted, recover, uncertain_ids, write_off

MOST_FILE_BYTES = 64 * 1024**2


class Resolution(StrEnum):
    """What a person says of jobs in doubt, where there is no task to name."""

    NOT_SUBMITTED = "not_submitted"
    """The POST made no task: submit the job again."""
    GIVE_UP = "give_up"
    """Whatever became of it, the job is written off."""


class UnresolvedJob(Struct, frozen=True):
    """A job, or a pattern, that can't be settled, and why."""

    name: str
    why: str


class ResolveResult(Struct, frozen=True):
    """
    What came of settling jobs. Either all are settled, or some are refused and none is.

    Attributes:
        resolved: Ids, in the order in which they were named.
        left: Jobs that are still in doubt.
    """

    resolved: tuple[str, ...]
    refused: tuple[UnresolvedJob, ...]
    left: int


def resolve_tasks(run_dir: Path, tasks: Mapping[str, str]) -> ResolveResult:
    """
    Give jobs the tasks that belong to them; the next run polls and downloads those.

    Besides jobs in doubt it takes jobs that were lost or written off.

    Args:
        tasks: Task ids by job id.

    Raises:
        RunDirError: The directory is no run's, in use, or can't be used.
    """
    with _Resolver(run_dir) as settling:
        return settling.attach_all(tasks)


def resolve_as(run_dir: Path, patterns: Sequence[str], verdict: Resolution) -> ResolveResult:
    """
    Settle jobs in doubt that have no task to name.

    Args:
        patterns: Ids, or patterns as the shell matches file names; each must name a job in doubt.

    Raises:
        RunDirError: As for `resolve_tasks`.
    """
    with _Resolver(run_dir) as settling:
        return settling.resolve_all(patterns, verdict)


def read_tasks(path: Path) -> dict[str, str]:
    """
    Read a CSV file of ``job_id,task_id`` lines; a heading of just these names, a BOM and blank lines are allowed.

    Raises:
        UsageError: It can't be read, or lines of it are wrong; each is named by its number.
    """
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise UsageError(
                f"{path} is too large to be a list of tasks", hint="name a file of job_id,task_id lines"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    tasks: dict[str, str] = {}
    wrong: list[str] = []
    lines = csv.reader(text.splitlines(), strict=True)
    try:
        for row in lines:
            _take(row, lines.line_num, tasks, wrong)
    except csv.Error as error:
        wrong.append(f"line {lines.line_num}: {error}")
    if wrong:
        raise UsageError(
            f"{path} is not a list of tasks, and nothing was settled: " + "; ".join(wrong[:10]),
            hint="write a line for each job: job_id,task_id",
        )
    if not tasks:
        raise UsageError(f"{path} names no jobs", hint="write a line for each job: job_id,task_id")
    return tasks


def _take(row: list[str], number: int, tasks: dict[str, str], wrong: list[str]) -> None:
    cells = [cell.strip() for cell in row]
    if not any(cells) or (cells == ["job_id", "task_id"] and not tasks):
        return
    if len(cells) != 2 or not all(cells):
        wrong.append(f"line {number} is not job_id,task_id")
    elif cells[0] in tasks:
        wrong.append(f"line {number} names {cells[0]!r} a second time")
    elif why := task_id_error(cells[1]):
        wrong.append(f"line {number}: {why}")
    else:
        tasks[cells[0]] = cells[1]


class _Resolver:
    """A run directory that is open to settle its jobs; its files are made anew where any was."""

    def __init__(self, run_dir: Path) -> None:
        require_run(run_dir)
        self._store = Store(run_dir)
        self._at = time.time()

    def __enter__(self) -> _Resolver:
        self._store.__enter__()
        # What a dead process left between intent and answer is in doubt, and may be settled too.
        with self._store.transaction() as connection:
            recover(connection, at=self._at)
        return self

    def __exit__(self, *error: object) -> None:
        self._store.__exit__(None, None, None)

    def attach_all(self, tasks: Mapping[str, str]) -> ResolveResult:
        """Give each job its task, in one transaction; none gets one where any is refused."""
        reader = self._store.reader
        refused = [UnresolvedJob(job, why) for job in tasks if (why := _not_attachable(reader, job))]
        refused += _claimed(reader, tasks)
        if not refused:
            with self._store.transaction() as connection:
                for job_id, task_id in tasks.items():
                    attach_task(connection, job_id, task_id, at=self._at)
        return self._resolved(tasks, refused)

    def resolve_all(self, patterns: Sequence[str], verdict: Resolution) -> ResolveResult:
        """Apply a verdict to every job in doubt that is named; to none where a name fits nothing."""
        settled: dict[str, None] = {}
        refused: list[UnresolvedJob] = []
        for pattern in patterns:
            state = _state_of(self._store.reader, pattern)
            # The id itself comes first: it may hold what would be a pattern.
            found = [pattern] if state is State.UNCERTAIN else uncertain_ids(self._store.reader, [pattern])
            if found:
                settled.update(dict.fromkeys(found))
            else:
                refused.append(
                    UnresolvedJob(
                        pattern, "names no job in doubt" if state is None else f"is {state}, not in doubt"
                    )
                )
        if not refused:
            act = mark_not_submitted if verdict is Resolution.NOT_SUBMITTED else write_off
            with self._store.transaction() as connection:
                for job_id in settled:
                    act(connection, job_id)
        return self._resolved(settled, refused)

    def _resolved(self, names: Iterable[str], refused: list[UnresolvedJob]) -> ResolveResult:
        if not refused:
            self._write_files()
        left = query.counts(self._store.reader)[State.UNCERTAIN]
        return ResolveResult(() if refused else tuple(names), tuple(refused), left)

    def _write_files(self) -> None:
        store = self._store
        settings_text, origin_text = store.meta(run_facts.SETTINGS), store.meta(run_facts.ORIGIN)
        if settings_text is None or origin_text is None:
            return
        settings = run_facts.read_settings(settings_text)
        is_simulated = run_facts.RunOrigin.read(origin_text).is_simulated
        outputs = Outputs(
            store, settings, SIMULATED if is_simulated else settings.base_url or DEFAULT_BASE_URL
        )
        try:
            outputs.finish(now_at=self._at)
            store.mark_finished()
        finally:
            outputs.close()


def _state_of(reader: sqlite3.Connection, job_id: str) -> State | None:
    job = query.job(reader, job_id, waiting_since=0.0)
    return None if job is None else job.state


def _not_attachable(reader: sqlite3.Connection, job_id: str) -> str | None:
    job = query.job(reader, job_id, waiting_since=0.0)
    if job is None:
        return "is no job of this run"
    if job.state not in sources(Event.ATTACHED):
        return f"is {job.state}, not in doubt"
    if job.state is State.FAILED and (job.error is None or job.error.cls not in _MAY_HAVE_A_TASK):
        return f"failed ({'unknown' if job.error is None else job.error.cls}) without a task to name"
    return None


_MAY_HAVE_A_TASK = (FailureClass.UNCERTAIN_SUBMIT, FailureClass.LOST)


def _claimed(reader: sqlite3.Connection, tasks: Mapping[str, str]) -> list[UnresolvedJob]:
    """Find tasks that two jobs would have: one of them would get the other's video."""
    refused = []
    counts = Counter(tasks.values())
    owners = query.job_ids_by_task(reader, tasks.values())
    for job_id, task_id in tasks.items():
        owner = owners.get(task_id, job_id)
        if owner != job_id:
            refused.append(UnresolvedJob(job_id, f"can't have the task {task_id}: it belongs to {owner}"))
        elif counts[task_id] > 1:
            refused.append(
                UnresolvedJob(job_id, f"can't have the task {task_id}: another job is to have it too")
            )
    return refused
