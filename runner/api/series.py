"""
Runs of a series, such as nightly ones: a manifest's directories for other dates, or other values in its name.

What older ones paid for and did not fetch is fetched before a new one begins, and at its end they may be deleted: the
directories beside its own whose names differ only in the date. One is deleted only if a run of the same manifest wrote it,
it holds nothing else, no process uses it, and none of its jobs is unfinished or uncertain. Whatever is unclear is kept.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.execute import execute
from runner.api.options import IfLocked, RunOptions
from runner.api.run_dir import continue_options, load_config, open_run
from runner.api.run_facts import RunFacts, read_facts
from runner.api.run_result import Callbacks, KeptRun, RetentionResult
from runner.api.state_dir import last_changes, runs_of
from runner.core.filenames import ASSETS_NAME, DB_FILES, DB_NAME, LOCK_NAME, RUN_FILES, file_stem
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.sanitize import command_text
from runner.core.stop import Stop, StopReason
from runner.core.units import format_count
from runner.disk import is_own
from runner.engine.events import ActiveRun, Notice, Observer, ignore
from runner.errors import RunnerError, UsageError
from runner.store import files, query
from runner.store.database import reading
from runner.store.lock import RunLock
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


async def catch_up(run_dirs: Sequence[Path], options: RunOptions, callbacks: Callbacks) -> Callbacks:
    """
    Poll and download what was paid for in older run directories; nothing is submitted there.

    Each takes `RunOptions.drain_s` at most. What can't be fetched is reported, and does not keep the new run from
    beginning.

    Returns:
        Those of the new run: it is stopped as well if a signal stopped this.
    """
    signaled: list[Stop] = []
    for run_dir in run_dirs:
        if signaled:
            break
        try:
            stops = await _fetch(run_dir, options, callbacks)
        except RunnerError as error:
            callbacks.observe(Notice("catch_up", f"not fetched from {run_dir}: {error.message}", error.hint))
        else:
            signaled += [stop for stop in stops if stop.reason in _SIGNALED]

    def started(engine: ActiveRun) -> None:
        callbacks.on_started(engine)
        for stop in signaled:
            engine.stop(stop)

    return replace(callbacks, on_started=started)


async def _fetch(run_dir: Path, options: RunOptions, callbacks: Callbacks) -> tuple[Stop, ...]:
    observe = callbacks.observe
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
        asks_nothing = replace(callbacks, confirm_cost=None)
        result = await execute(store, config, bounds, JobFilter(selected=True), asks_nothing)
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


_DATE = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_SHARD = re.compile(r"[0-9a-f]{2}")
_LEFT_OVER = re.compile(r"(.+?)(?:\.last_frame)?\.[a-z0-9]+\.(?:part|invalid)")
"""What a download that did not end left."""
_DELETED_LAST = (*DB_FILES, LOCK_NAME)
_FINISHED = frozenset({State.SUCCEEDED, State.FAILED})


def require_series(run_dir: Path) -> None:
    """
    Check that a run directory is one of a series.

    Raises:
        UsageError: There is no date in its name.
    """
    if _split(run_dir.name) is None:
        raise UsageError(
            f"the name of {run_dir} has no date in it, so older runs can't be found",
            hint="use ${date} in the manifest's name, or in -o, with --keep-runs or --keep-days",
        )


def delete_older(
    run_dir: Path, *, keep_runs: int | None, keep_days: int | None, today: date
) -> RetentionResult:
    """
    Delete the runs of a series that are older than this one and not to be kept.

    Args:
        run_dir: The newest run that counts; it and those of later dates are always kept.
        keep_runs: Keep the newest N, this one included; None to keep none by their number.
        keep_days: Keep those of the last N days; None to keep none by their age. A run that either keeps is kept.
    """
    earlier = sorted(_earlier(run_dir), reverse=True)
    by_number = set() if keep_runs is None else set(earlier[: max(0, keep_runs - 1)])
    by_age = set() if keep_days is None else {e for e in earlier if (today - e[0]).days <= keep_days}
    deleted, kept = [], []
    for _, path in (entry for entry in earlier if entry not in by_number | by_age):
        why = _delete(path, like=run_dir)
        if why is None:
            deleted.append(path)
        else:
            kept.append(KeptRun(path, why))
    return RetentionResult(tuple(deleted), tuple(kept))


def _earlier(run_dir: Path) -> Iterator[tuple[date, Path]]:
    """Find the directories with the same name but an earlier date."""
    own = _split(run_dir.name)
    if own is None:
        return
    for path in run_dir.resolve().parent.iterdir():
        other = _split(path.name)
        if other is None or (other[0], other[2]) != (own[0], own[2]) or other[1] >= own[1]:
            continue
        if path.is_dir() and not path.is_symlink():
            yield other[1], path


def _split(name: str) -> tuple[str, date, str] | None:
    """
    Split a name at its only date; None if it has no date, or several.

    >>> _split("nightly-2026-11-21-simulated")
    ('nightly-', datetime.date(2026, 11, 21), '-simulated')
    >>> _split("nightly-2026-13-45"), _split("kittens")
    (None, None)
    """
    found = list(_DATE.finditer(name))
    if len(found) != 1:
        return None
    with suppress(ValueError):
        return name[: found[0].start()], date.fromisoformat(found[0][0]), name[found[0].end() :]
    return None


def _delete(run_dir: Path, *, like: Path) -> str | None:
    """Delete a run directory, or return why it is kept."""
    has_rest = all(path.name == LOCK_NAME for path in run_dir.iterdir())
    if not has_rest and not (run_dir / DB_NAME).is_file():
        return f"it has no {DB_NAME}"
    if foreign := _foreign_file(run_dir):
        return f"it has other files, such as {foreign}"
    try:
        with RunLock(run_dir):
            # The process that deleted it may have been killed before it was done.
            why = None if has_rest else _reason_to_keep(run_dir, like)
            if why is None:
                _remove(run_dir)
            return why
    except RunnerError as error:
        return error.message
    except OSError as error:
        return f"it can't be deleted: {error.strerror or error}"


def _foreign_file(run_dir: Path) -> str | None:
    for path in sorted(run_dir.iterdir()):
        if path.name not in RUN_FILES:
            return path.name
        if path.is_symlink() or path.is_dir() != (path.name == ASSETS_NAME):
            return path.name
    return None


def _manifest(facts: RunFacts) -> Path | None:
    return None if facts.origin.manifest is None else Path(facts.origin.manifest).resolve()


def _foreign_asset(reader: sqlite3.Connection, run_dir: Path) -> str | None:
    """Find a file or folder among the assets that the run did not write, or that was changed since."""
    sizes = files.asset_sizes(reader)
    own_stems: set[str] | None = None
    for path in sorted((run_dir / ASSETS_NAME).rglob("*")):
        name, status = path.relative_to(run_dir).as_posix(), path.lstat()
        if stat.S_ISDIR(status.st_mode) and _SHARD.fullmatch(path.name) and path.parent.name == ASSETS_NAME:
            continue
        if is_own(status) and sizes.get(name) == status.st_size:
            continue
        if own_stems is None:
            own_stems = {file_stem(job_id) for job_id in query.job_ids(reader)}
        left_over = _LEFT_OVER.fullmatch(path.name)
        if not is_own(status) or left_over is None or left_over[1] not in own_stems:
            return name
    return None


def _reason_to_keep(run_dir: Path, like: Path) -> str | None:
    with reading(run_dir) as reader, reading(like) as own_reader:
        facts, own_facts = read_facts(reader), read_facts(own_reader)
        if facts is None or own_facts is None:
            return "no manifest was loaded into it"
        if facts.origin.is_simulated != own_facts.origin.is_simulated:
            return "one of the two runs is simulated"
        if _manifest(facts) != _manifest(own_facts):
            return f"it is a run of another manifest, {facts.origin.manifest}"
        if foreign := _foreign_asset(reader, run_dir):
            return f"it has other files, such as {foreign}"
        counts = query.counts(reader)
        if uncertain := counts[State.UNCERTAIN]:
            return f"{uncertain:,} of its jobs {'is' if uncertain == 1 else 'are'} uncertain"
        unfinished = sum(count for state, count in counts.items() if state not in _FINISHED)
        return (
            f"{unfinished:,} of its jobs {'is' if unfinished == 1 else 'are'} unfinished"
            if unfinished
            else None
        )


def _remove(run_dir: Path) -> None:
    """Delete a run's files; last those that make the directory known as a run."""
    with suppress(FileNotFoundError):
        shutil.rmtree(run_dir / ASSETS_NAME)
    for name in (*sorted(RUN_FILES - {ASSETS_NAME, *_DELETED_LAST}), *_DELETED_LAST):
        (run_dir / name).unlink(missing_ok=True)
    run_dir.rmdir()
