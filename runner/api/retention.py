"""
Delete older runs of a series, such as those of every night: the directories beside this one that differ in their date.

A directory goes only if this program wrote it, everything in it is of this program, no process works in it,
and none of its jobs is unfinished or in doubt. Whatever is unclear stays.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

from msgspec import Struct

from runner.api import run_facts
from runner.api.outputs import FAILED_NAME, REPORT_NAME, SUMMARY_NAME
from runner.api.simulate import LEDGER_NAME
from runner.core.lifecycle import State
from runner.errors import RunnerError, UsageError
from runner.store import query
from runner.store.database import DB_NAME, RESULTS_NAME, connect_reader
from runner.store.lock import LOCK_NAME, RunLock
from runner.store.writer import RESERVE_NAME

_DATE = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_OURS = frozenset({RESULTS_NAME, FAILED_NAME, SUMMARY_NAME, REPORT_NAME, LEDGER_NAME, "assets", RESERVE_NAME})
_LAST = (f"{DB_NAME}-wal", f"{DB_NAME}-shm", f"{DB_NAME}-journal", DB_NAME, LOCK_NAME)
_SETTLED = frozenset({State.SUCCEEDED, State.FAILED})


class KeptRun(Struct, frozen=True):
    """An older run that would have gone, and why it stays."""

    run_dir: Path
    why: str


class RetentionResult(Struct, frozen=True):
    """What deleting older runs came to."""

    deleted: tuple[Path, ...]
    kept: tuple[KeptRun, ...]


def require_series(run_dir: Path) -> None:
    """
    Make sure that a run directory is one of a series.

    Raises:
        UsageError: There is no date in its name.
    """
    if _split(run_dir.name) is None:
        raise UsageError(
            f"older runs can't be told from others, since the name of {run_dir} has no date in it",
            hint="write ${date} into the manifest's name, or into -o, to use --keep-runs or --keep-days",
        )


def delete_older(
    run_dir: Path, *, keep_runs: int | None, keep_days: int | None, today: date
) -> RetentionResult:
    """
    Delete the runs of a series that are older than this one and not to be kept.

    Args:
        run_dir: The newest run to count; it and those of later dates always stay.
        keep_runs: So many of the newest stay, this one included; None for any number.
        keep_days: Those of the last so many days stay; None for any age. Where both are given, what either keeps stays.
    """
    earlier = sorted(_earlier(run_dir), reverse=True)
    by_number = set() if keep_runs is None else set(earlier[: max(0, keep_runs - 1)])
    by_age = set() if keep_days is None else {e for e in earlier if (today - e[0]).days <= keep_days}
    deleted, spared = [], []
    for _, path in (entry for entry in earlier if entry not in by_number | by_age):
        why = _delete(path, like=run_dir)
        if why is None:
            deleted.append(path)
        else:
            spared.append(KeptRun(path, why))
    return RetentionResult(tuple(deleted), tuple(spared))


def _earlier(run_dir: Path) -> Iterator[tuple[date, Path]]:
    """Find the directories of the same name but for an earlier date."""
    mine = _split(run_dir.name)
    if mine is None:
        return
    for path in run_dir.resolve().parent.iterdir():
        other = _split(path.name)
        if other is None or (other[0], other[2]) != (mine[0], mine[2]) or other[1] >= mine[1]:
            continue
        if path.is_dir() and not path.is_symlink():
            yield other[1], path


def _split(name: str) -> tuple[str, date, str] | None:
    """
    Cut a name in two at its only date.

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
    """Delete a run directory, or say why it stays."""
    if not (run_dir / DB_NAME).is_file():
        return "it has no run.db"
    if foreign := _foreign(run_dir):
        return f"it has files of others: {foreign}"
    try:
        with RunLock(run_dir):
            why = _reason_to_keep(run_dir, like)
            if why is None:
                _remove(run_dir)
            return why
    except RunnerError as error:
        return error.message
    except OSError as error:
        return f"it can't be deleted: {error.strerror or error}"


def _foreign(run_dir: Path) -> str | None:
    for path in sorted(run_dir.iterdir()):
        if path.name not in _OURS and path.name not in _LAST:
            return path.name
        if path.is_symlink() or path.is_dir() != (path.name == "assets"):
            return path.name
    return None


def _reason_to_keep(run_dir: Path, like: Path) -> str | None:
    with closing(connect_reader(run_dir)) as reader, closing(connect_reader(like)) as own:
        origin, mine = query.meta(reader, run_facts.ORIGIN), query.meta(own, run_facts.ORIGIN)
        if origin is None or mine is None:
            return "no manifest was ever taken in"
        if run_facts.RunOrigin.read(origin).is_simulated != run_facts.RunOrigin.read(mine).is_simulated:
            return "one of them is simulated"
        counts = query.counts(reader)
        open_jobs = sum(count for state, count in counts.items() if state not in _SETTLED)
        if counts[State.UNCERTAIN]:
            return f"{counts[State.UNCERTAIN]} of its jobs are in doubt"
        return f"{open_jobs} of its jobs are unfinished" if open_jobs else None


def _remove(run_dir: Path) -> None:
    """Delete what can be made again first, and what says what the directory is last."""
    with suppress(FileNotFoundError):
        shutil.rmtree(run_dir / "assets")
    for name in (*sorted(_OURS - {"assets"}), *_LAST):
        (run_dir / name).unlink(missing_ok=True)
    run_dir.rmdir()
