"""How a run stands, on a directory at rest or in use: nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from runner.api import run_facts
from runner.core.estimate import estimate_duration
from runner.core.lifecycle import State, next_step
from runner.core.settings import Settings
from runner.store import query
from runner.store.database import DB_NAME, connect_reader, translated
from runner.store.lock import holder_of

RECENT_S = 600.0
"""Rates are those of the last ten minutes, or of the time since the first submission where that is shorter."""
STUCK_TIMES = 3.0
"""A task is stuck when it takes so many times the median of its model's finished ones."""
ENOUGH_FINISHED = 5
"""Finished tasks of a model from which their median says something."""
MOST_STUCK = 100


class StuckJob(Struct, frozen=True):
    """A task that takes far longer than those of its model did."""

    job_id: str
    model: str
    task_id: str | None
    age_s: float
    median_s: float


class Status(Struct, frozen=True, kw_only=True):
    """
    How a run stands.

    Attributes:
        by_state: Every state, zeros included; jobs that left the manifest don't count, unless in doubt.
        by_class: Jobs at rest without success, by the class of their failure.
        holder: The process that works on the run, or None.
        submitted_per_s: Over the last minutes; 0 where no process is at work. `finished_per_s` likewise.
        seconds_left: Until all that can end has ended; None where there is nothing to go by.
        binding: What keeps it from going faster, in the manifest's words; empty where nothing is left.
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
    binding: str
    stuck: tuple[StuckJob, ...]
    first_submitted_at: float | None
    last_finished_at: float | None

    @property
    def left(self) -> int:
        """Jobs that a run still does something for."""
        return sum(count for state, count in self.by_state.items() if next_step(state) is not None)


def status(run_dir: Path | str, *, now_at: float) -> Status:
    """
    Say how a run stands.

    Args:
        now_at: Seconds since 1970.

    Raises:
        StoreMissing: The directory is no run directory.
        RunDirError: Its ``run.db`` can't be read.
    """
    folder = Path(run_dir)
    with closing(connect_reader(folder)) as connection, translated(folder / DB_NAME):
        holder = holder_of(folder)
        text = query.meta(connection, run_facts.SETTINGS)
        settings = None if text is None else run_facts.read_settings(text)
        by_state = query.counts(connection, with_gone=False)
        pace = query.run_rate(connection, since_at=now_at - RECENT_S)
        submitted_per_s, finished_per_s = _rates(pace, now_at) if holder else (0.0, 0.0)
        seconds_left, binding = _time_left(connection, settings, by_state, submitted_per_s, finished_per_s)
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
            binding=binding,
            stuck=tuple(_stuck(connection, now_at)) if holder else (),
            first_submitted_at=pace.first_submitted_at,
            last_finished_at=pace.last_finished_at,
        )


def _rates(pace: query.RunRate, now_at: float) -> tuple[float, float]:
    """Submissions and endings a second over the recent time that the run has been going."""
    if pace.first_submitted_at is None:
        return 0.0, 0.0
    window_s = min(max(now_at - pace.first_submitted_at, 1.0), RECENT_S)
    return pace.submitted / window_s, pace.finished / window_s


def _time_left(
    connection: sqlite3.Connection,
    settings: Settings | None,
    by_state: Mapping[State, int],
    submitted_per_s: float,
    finished_per_s: float,
) -> tuple[float | None, str]:
    left = sum(count for state, count in by_state.items() if next_step(state) is not None)
    if not left or settings is None:
        return (None if left else 0.0), ""
    estimate = estimate_duration(
        query.pending_by_model(connection, query.JobFilter()),
        settings.limits,
        query.mean_generate_s(connection),
    )
    binding = estimate.limited_by
    in_flight = by_state[State.SUBMITTED] + by_state[State.SUBMITTING]
    if not by_state[State.PENDING]:
        binding = "waiting for the tasks that were submitted"
    elif in_flight >= settings.limits.in_flight:
        binding = f"limits.in_flight {settings.limits.in_flight}"
    # What is achieved tells more than what would be allowed.
    return (left / finished_per_s if finished_per_s else estimate.seconds or None), binding


def _stuck(connection: sqlite3.Connection, now_at: float) -> list[StuckJob]:
    medians: dict[str, float | None] = {}
    stuck = []
    for job in query.jobs_in_states(connection, [State.SUBMITTED], waiting_since=0.0):
        if job.model not in medians:
            medians[job.model] = query.median_s(connection, job.model, at_least=ENOUGH_FINISHED)
        median_s = medians[job.model]
        if median_s is None or job.submitted_at is None:
            continue
        age_s = now_at - job.submitted_at
        if age_s > STUCK_TIMES * median_s:
            stuck.append(StuckJob(job.job_id, job.model, job.task_id, age_s, median_s))
    return sorted(stuck, key=lambda job: -job.age_s)[:MOST_STUCK]
