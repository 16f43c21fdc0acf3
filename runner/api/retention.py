"""
What of runs is kept: lost files are downloaded again, and older runs of a series, such as nightly runs, are deleted.

Older runs are the directories beside this one whose names differ only in the date. A directory is deleted only if a run
of the same manifest wrote it, it holds nothing else, no process uses it, and none of its jobs is unfinished or uncertain.
Whatever is unclear is kept. Files that are gone or have changed are never paid for again.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from itertools import compress, islice
from operator import not_
from pathlib import Path

from msgspec import Struct

from runner.api.run_facts import RunFacts, read_facts
from runner.assets.publish import is_complete, is_uploaded
from runner.core.filenames import ASSETS_NAME, DB_FILES, DB_NAME, LOCK_NAME, RUN_FILES, file_stem
from runner.core.lifecycle import State
from runner.core.model import Asset, Failure, FailureClass
from runner.core.units import format_count
from runner.disk import is_own
from runner.engine.events import Notice, Observer
from runner.errors import RunnerError, UsageError
from runner.objects import Objects
from runner.store import files, query
from runner.store.database import reading
from runner.store.local_view import REBUILT
from runner.store.lock import RunLock
from runner.store.store import Store
from runner.store.transitions import mark_undelivered

_DATE = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_SHARD = re.compile(r"[0-9a-f]{2}")
_LEFT_OVER = re.compile(r"(.+?)(?:\.last_frame)?\.[a-z0-9]+\.(?:part|invalid)")
"""What a download that did not end left."""
_DELETED_LAST = (*DB_FILES, LOCK_NAME)
_FINISHED = frozenset({State.SUCCEEDED, State.FAILED})


class KeptRun(Struct, frozen=True):
    """An older run that should have been deleted, and why it is kept."""

    run_dir: Path
    why: str


class RetentionResult(Struct, frozen=True):
    """Which older runs were deleted."""

    deleted: tuple[Path, ...]
    kept: tuple[KeptRun, ...]


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


_BATCH = 256
_REQUESTS_AT_ONCE = 16
"""A request takes some 30 ms."""


def refetch_lost_files(store: Store) -> None:
    """Make succeeded jobs undelivered whose files are not on this machine, so that they are downloaded again."""
    lost = {
        job_id: Failure(FailureClass.ASSET_INVALID, f"{path} was left on another machine, or lost with it")
        for job_id, path in files.jobs_with_lost_files(store.reader, store.run_dir)
    }
    with store.transaction() as connection:
        mark_undelivered(connection, lost, at=time.time())
        connection.execute("DELETE FROM meta WHERE key = ?", (REBUILT,))


def missing_uploads(
    reader: sqlite3.Connection, environ: Mapping[str, str], *, is_read: bool = False
) -> Iterator[tuple[str, Asset]]:
    """
    Yield the succeeded jobs with an asset that is gone from its object store, or was changed; each with the asset.

    Args:
        environ: The environment, for the credentials.
        is_read: Whether the bytes are read where the store keeps no digests.

    Raises:
        UsageError, ObjectStoreError: A store can't be used.
    """
    objects = Objects(environ)
    uploaded = files.delivered_assets(reader, only_uploaded=True)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="uploads") as pool:
        while batch := list(islice(uploaded, _BATCH)):
            found = pool.map(lambda each: is_uploaded(objects, each[1], is_read=is_read), batch)
            yield from compress(batch, map(not_, found))


def verify_assets(store: Store, environ: Mapping[str, str], observe: Observer) -> None:
    """
    Make succeeded jobs undelivered if a file of theirs is gone or has another content; every file is read.

    Of what was uploaded, length and digest are read from the object store.

    Raises:
        UsageError, ObjectStoreError: A store can't be used.
    """
    changed = [
        (job_id, asset)
        for job_id, asset in files.delivered_assets(store.reader)
        if asset.url is None and not is_complete(str(store.run_dir / asset.path), asset)
    ]
    lost = {
        job_id: Failure(
            FailureClass.ASSET_INVALID,
            f"{asset.url or asset.path} is missing or was changed after its download",
        )
        for job_id, asset in (*changed, *missing_uploads(store.reader, environ, is_read=True))
    }
    with store.transaction() as connection:
        mark_undelivered(connection, lost, at=time.time())
    message = f"files that are missing or were changed, to download again: {format_count(len(lost), 'job')}"
    observe(Notice("verified", message))
