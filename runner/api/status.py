"""The status of a run and its jobs, even while it is active; nothing is written."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runner.api.job_choice import ids_to_compare, require_known_names
from runner.api.run_facts import LEARNED, SNAPSHOT, RunFacts, read_facts
from runner.api.run_ledger import BudgetLeft, budgets_left
from runner.api.shards import divided
from runner.core.cost import Spend
from runner.core.estimate import estimate_duration
from runner.core.lifecycle import State, next_step
from runner.core.model import FailureClass, JobRecord
from runner.core.sanitize import command_text
from runner.core.settings import Settings
from runner.core.where import Condition
from runner.disk import AnyPath
from runner.errors import RunnerError, UsageError
from runner.schema.wording import did_you_mean
from runner.store import costs, files, query, work_list
from runner.store.database import reading
from runner.store.lock import holder_of
from runner.store.takes import count_awaiting_take
from runner.store.work_list import JobFilter

RECENT_S = 600.0
"""Rates are those of the last ten minutes, or of the time since the first submission if that is shorter."""
STUCK_FACTOR = 3.0
"""A task is stuck if it takes this many times the median of its model's finished tasks."""
MIN_FINISHED = 5
"""Finished tasks of a model from which their median is meaningful."""
MAX_STUCK = 100
MAX_LOOKUPS = 2_000
"""With more files, none is checked in an object store: each takes a request."""


class StuckJob(Struct, frozen=True):
    """A task that takes far longer than finished tasks of its model did."""

    job_id: str
    model: str
    task_id: str | None
    age_s: float
    median_s: float


class Status(Struct, frozen=True, kw_only=True):
    """
    The status of a run.

    Attributes:
        by_state: Every state, zeros included; jobs that left the manifest don't count, unless they are uncertain.
        by_class: Jobs that ended without success, by the class of their failure.
        holder: The process that works on the run, or None.
        submitted_per_s: Over the last minutes, as is `finished_per_s`; 0 if no process is running.
        seconds_left: Until every job that can end has ended; None if there is nothing to base an estimate on.
        limited_by: The limit that keeps it from being faster, in the manifest's words; empty if nothing is left.
        spend: What the attempts cost, by currency.
        budgets: How much of each budget is left.
        awaiting_take: Pending jobs that had a video, which was rejected and is kept until there is a new one.
        lost_files: Paths or URLs of succeeded jobs' files that are gone, or have another size (which is not checked in a
            run with many files); none while a process is running.
        not_seen: Why files in an object store were not checked, or None.
        is_simulated: Whether its jobs go to the simulator, so that nothing is paid.
    """

    run_dir: Path
    name: str | None
    jobs: int
    by_state: Mapping[State, int]
    by_class: Mapping[str, int]
    holder: str | None
    submitted_per_s: float
    finished_per_s: float
    seconds_left: float | None
    limited_by: str
    stuck: tuple[StuckJob, ...]
    first_submitted_at: float | None
    last_finished_at: float | None
    lost_files: tuple[str, ...]
    not_seen: str | None
    spend: tuple[Spend, ...]
    budgets: tuple[BudgetLeft, ...]
    awaiting_take: int = 0
    is_simulated: bool = False

    @property
    def left(self) -> int:
        """Jobs that a run would still work on."""
        return sum(count for state, count in self.by_state.items() if next_step(state) is not None)


def status(run_dir: AnyPath, *, now_at: float | None = None) -> Status:
    """
    Return the status of a run.

    Args:
        now_at: Seconds since 1970; None for now.

    Raises:
        StoreMissing: The directory is not a run directory.
        RunDirError: Its ``run.db`` can't be read.
    """
    folder = Path(run_dir)
    now_at = time.time() if now_at is None else now_at
    with reading(folder) as connection:
        holder = holder_of(folder)
        facts = read_facts(connection)
        settings = None if facts is None else facts.settings
        if facts is not None and facts.origin.shard is not None:
            settings = divided(facts.settings, facts.origin.shard)
        by_state = query.counts(connection, with_gone=False)
        lost: tuple[str, ...] = ()
        not_seen = None
        if not holder and SNAPSHOT not in query.meta(connection):
            lost, not_seen = _lost_files(connection, folder, facts)
        rate = query.run_rate(connection, since_at=now_at - RECENT_S)
        submitted_per_s, finished_per_s = _rates(rate, now_at) if holder else (0.0, 0.0)
        newest_task_s = now_at - (rate.last_submitted_at or now_at) if holder else 0.0
        seconds_left, limited_by = _time_left(connection, settings, by_state, finished_per_s, newest_task_s)
        return Status(
            run_dir=folder,
            name=None if settings is None else settings.name,
            jobs=sum(by_state.values()),
            by_state=by_state,
            by_class=query.class_counts(connection),
            holder=holder,
            submitted_per_s=submitted_per_s,
            finished_per_s=finished_per_s,
            seconds_left=seconds_left,
            limited_by=limited_by,
            stuck=tuple(_stuck(connection, now_at)) if holder else (),
            first_submitted_at=rate.first_submitted_at,
            last_finished_at=rate.last_finished_at,
            lost_files=lost,
            not_seen=not_seen,
            spend=costs.spend(connection),
            budgets=() if settings is None else budgets_left(settings, connection, folder),
            awaiting_take=count_awaiting_take(connection) if by_state[State.PENDING] else 0,
            is_simulated=facts is not None and facts.origin.is_simulated,
        )


def _lost_files(
    connection: sqlite3.Connection, folder: Path, facts: RunFacts | None
) -> tuple[tuple[str, ...], str | None]:
    """Return the files that are gone from here and from object stores, and why the latter were not checked."""
    lost = tuple(files.lost_files(connection, folder))
    if facts is None or not files.has_uploads(connection):
        return lost, None
    # Few runs need them.
    from runner.api import asset_store, config

    if files.count_assets(connection) > MAX_LOOKUPS:
        return lost, "there are many; runner resume --verify looks at all"
    try:
        missing = asset_store.missing_uploads(connection, config.run_environment(facts))
        return (*lost, *(asset.url or asset.path for _, asset in missing)), None
    except RunnerError as error:
        return lost, error.message


def _rates(rate: query.RunRate, now_at: float) -> tuple[float, float]:
    """Return how many jobs were submitted, and how many ended, per second of the recent time."""
    if rate.first_submitted_at is None:
        return 0.0, 0.0
    window_s = min(max(now_at - rate.first_submitted_at, 1.0), RECENT_S)
    return rate.submitted / window_s, rate.finished / window_s


def _time_left(
    connection: sqlite3.Connection,
    settings: Settings | None,
    by_state: Mapping[State, int],
    finished_per_s: float,
    newest_task_s: float,
) -> tuple[float | None, str]:
    left = sum(count for state, count in by_state.items() if next_step(state) is not None)
    if not left or settings is None:
        return (None if left else 0.0), ""
    in_flight = by_state[State.SUBMITTED] + by_state[State.SUBMITTING]
    estimate = estimate_duration(
        work_list.pending_by_model(connection, JobFilter()),
        settings.limits,
        query.mean_generate_s(connection),
        first_poll_s=settings.poll.first_s,
        in_flight=left - by_state[State.PENDING],
        newest_task_s=newest_task_s,
        finished_per_s=finished_per_s,
        learned=json.loads(query.meta(connection).get(LEARNED, "{}")),
    )
    limited_by = estimate.limited_by
    if not by_state[State.PENDING]:
        limited_by = "waiting for submitted tasks"
    elif in_flight >= settings.limits.in_flight:
        limited_by = f"limits.in_flight {settings.limits.in_flight}"
    return estimate.known_s, limited_by


def _stuck(connection: sqlite3.Connection, now_at: float) -> list[StuckJob]:
    medians: dict[str, float | None] = {}
    stuck = []
    for job in work_list.jobs_in_states(connection, [State.SUBMITTED], waiting_since=0.0):
        if job.model not in medians:
            medians[job.model] = query.median_s(connection, job.model, at_least=MIN_FINISHED)
        median_s = medians[job.model]
        if median_s is None or job.submitted_at is None:
            continue
        age_s = now_at - job.submitted_at
        if age_s > STUCK_FACTOR * median_s:
            stuck.append(StuckJob(job.job_id, job.model, job.task_id, age_s, median_s))
    return sorted(stuck, key=lambda job: -job.age_s)[:MAX_STUCK]


class RunJobs(Struct, frozen=True):
    """
    Jobs of a run.

    Attributes:
        run: The name of the run.
        gateway: As result lines have it.
    """

    run: str
    gateway: str
    records: Iterable[JobRecord]


class JobDetails(Struct, frozen=True):
    """
    One job of a run.

    Attributes:
        answers: The answers that were not understood, or their start, by the number of the attempt.
    """

    run: str
    gateway: str
    record: JobRecord
    answers: Mapping[int, str]


def jobs(
    run_dir: Path,
    *,
    states: Collection[State] = (),
    classes: Collection[FailureClass] = (),
    glob: str | None = None,
    where: Sequence[Condition] = (),
) -> RunJobs:
    """
    Find jobs of a run, in manifest order.

    Args:
        states: Only jobs in one of these; all if it is empty.
        classes: Only jobs with one of these failure classes; all if it is empty.
        glob: Only jobs whose id matches.
        where: Only jobs that meet all these conditions.

    Raises:
        StoreMissing: The directory is not a run directory.
        RunDirError: Its ``run.db`` can't be read.
        UsageError: While they are read: a condition names what no job of the run has.
    """
    name, gateway = _facts(run_dir)

    def found() -> Iterator[JobRecord]:
        with reading(run_dir) as connection:
            records = query.records_in(connection, frozenset(states)) if states else query.records(connection)
            is_empty = True
            for record in records:
                if classes and (record.error is None or record.error.cls not in classes):
                    continue
                if glob is not None and not work_list.is_match(connection, record.job_id, glob):
                    continue
                if all(condition.matches(record) for condition in where):
                    is_empty = False
                    yield record
            if is_empty and where:
                require_known_names(where, query.records(connection))

    return RunJobs(name, gateway, found())


def job(run_dir: Path, job_id: str) -> JobDetails:
    """
    Read one job of a run.

    Raises:
        UsageError: The run has no such job; the hint has the nearest id.
        StoreMissing: The directory is not a run directory.
        RunDirError: Its ``run.db`` can't be read.
    """
    name, gateway = _facts(run_dir)
    with reading(run_dir) as connection:
        found = query.job(connection, job_id, waiting_since=0.0)
        if found is None:
            raise UsageError(
                f"{run_dir} has no job {job_id!r}",
                hint=did_you_mean(job_id, ids_to_compare(connection))
                or f"list them with: {command_text('runner', 'jobs', run_dir)}",
            )
        (record,) = query.records(connection, [found.seq])
        return JobDetails(name, gateway, record, query.answers(connection, job_id))


def _facts(run_dir: Path) -> tuple[str, str]:
    with reading(run_dir) as connection:
        facts = read_facts(connection)
    return (run_dir.name, "") if facts is None else (facts.settings.name, facts.gateway)
