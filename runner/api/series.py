"""
Runs of a series, such as nightly ones: a manifest's directories for other dates, or other values in its name.

What older ones paid for and did not fetch is fetched before a new one begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.execute import execute
from runner.api.options import IfLocked, RunOptions
from runner.api.run_dir import continue_options, load_config, open_run
from runner.api.run_facts import read_facts
from runner.api.run_result import OnStarted
from runner.api.state_dir import last_changes, runs_of
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.sanitize import command_text
from runner.core.stop import Stop, StopReason
from runner.core.units import format_count
from runner.engine.events import ActiveRun, Notice, Observer, ignore
from runner.errors import RunnerError
from runner.store import query
from runner.store.database import reading
from runner.store.transitions import Selection, select_for_rerun
from runner.store.work_list import JobFilter

_SIGNALED = (StopReason.INTERRUPTED, StopReason.TERMINATED)


class Series(Struct, frozen=True):
    """
    The runs of a series.

    Attributes:
        template: See `series_of`.
    """

    manifest: Path
    template: str
    is_simulated: bool

    def unfinished(self, run_dir: Path, observe: Observer = ignore) -> list[Path]:
        """
        Return the other directories of the series that a process left unfinished: those beside a run's own, and known ones.

        They have tasks to fetch, or their process was killed before it wrote the results.

        Args:
            observe: Gets a notice about known directories that were skipped, because their disk does not answer.
        """
        own = run_dir.resolve()
        beside = own.parent.iterdir() if own.parent.is_dir() else ()
        known = last_changes(
            (Path(run.run_dir) for run in runs_of(self.manifest)),
            lambda silent: observe(Notice("catch_up", f"skipped: {silent} (the disk does not answer)")),
        )
        found = {path.resolve() for path in (*beside, *known) if (path / DB_NAME).is_file()} - {own}
        return sorted(path for path in found if self._is_unfinished(path))

    def _is_unfinished(self, run_dir: Path) -> bool:
        with suppress(RunnerError), reading(run_dir) as reader:
            facts = read_facts(reader)
            if facts is None:
                return False
            origin = facts.origin
            is_own = (
                origin.series == self.template
                and origin.manifest is not None
                and Path(origin.manifest).resolve() == self.manifest.resolve()
            )
            counts = query.counts(reader)
            return (
                is_own
                and origin.is_simulated == self.is_simulated
                and (any(counts[state] for state in WITH_A_TASK) or _was_killed(reader))
            )
        return False


def _was_killed(reader: sqlite3.Connection) -> bool:
    """Return whether jobs were submitted and the results are not up to date."""
    return query.has_attempts(reader) and "finished" not in query.meta(reader)


async def catch_up(
    run_dirs: Sequence[Path], options: RunOptions, *, observe: Observer, on_started: OnStarted
) -> OnStarted:
    """
    Poll and download what was paid for in older run directories; nothing is submitted there.

    Each takes `RunOptions.drain_s` at most. What can't be fetched is reported, and does not keep the new run from
    beginning.

    Returns:
        What is to get the new run's engine: it is stopped as well if a signal stopped this.
    """
    signaled: list[Stop] = []
    for run_dir in run_dirs:
        if signaled:
            break
        try:
            stops = await _fetch(run_dir, options, observe, on_started)
        except RunnerError as error:
            observe(Notice("catch_up", f"not fetched from {run_dir}: {error.message}", error.hint))
        else:
            signaled += [stop for stop in stops if stop.reason in _SIGNALED]

    def started(engine: ActiveRun) -> None:
        on_started(engine)
        for stop in signaled:
            engine.stop(stop)

    return started


async def _fetch(
    run_dir: Path, options: RunOptions, observe: Observer, on_started: OnStarted
) -> tuple[Stop, ...]:
    options = replace(options, if_locked=IfLocked.FAIL, adopt_results=False)
    async with open_run(run_dir, options, observe) as store:
        config = load_config(store, options)
        # Pending jobs are not among them, so that none is submitted.
        plan = select_for_rerun(store.reader, Selection(states=WITH_A_TASK))
        tasks = plan.to_poll + plan.to_download
        jobs = format_count(tasks, "job")
        what = f"fetching what an older run paid for: {run_dir}, {jobs}"
        if not tasks:
            what = f"writing the results of an older run, whose process was killed: {run_dir}"
        observe(Notice("catch_up", what))
        bounds = RunOptions(max_runtime=options.drain_time, drain_time=0.0, scenario=options.scenario)
        result = await execute(
            store, config, bounds, JobFilter(selected=True), observe=observe, on_started=on_started
        )
    left, uncertain = sum(result.counts[state] for state in WITH_A_TASK), result.counts[State.UNCERTAIN]
    hint = None
    if left or uncertain:
        command = "resolve" if uncertain else "resume"
        hint = f"later: {command_text('runner', command, run_dir, *continue_options(run_dir))}"
    if tasks or uncertain:
        fetched = f"{format_count(tasks - left, 'job')} fetched, {left:,} left"
        doubt = f", {uncertain:,} uncertain" if uncertain else ""
        observe(Notice("catch_up", f"{run_dir}: {fetched}{doubt}", hint))
    return result.stops
