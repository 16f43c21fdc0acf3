"""Look for the files of jobs that succeeded: what has vanished or changed is downloaded again, and never paid for again."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.assets.publish import is_complete
from runner.core.filenames import ASSET_FOLDER_CHARS, ASSETS_NAME
from runner.core.model import Failure, FailureClass
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.store import files
from runner.store.store import Store
from runner.store.transitions import mark_undelivered

MAX_SIZES = 20_000
"""With more files, only their names are looked at: to ask for the size of each takes ten times as long."""


def lost_files(reader: sqlite3.Connection, run_dir: Path, *, max_sizes: int = MAX_SIZES) -> Iterator[str]:
    """
    Yield the paths of succeeded jobs' files that are gone.

    In a run with at most ``max_sizes`` files, one with another size counts as gone.
    """
    if files.count_assets(reader) <= max_sizes:
        yield from (path for _, path in jobs_with_lost_files(reader, run_dir))
        return
    # Of the names, only their hashes are kept, which take a third of the memory.
    listed = set(map(hash, _listed_files(run_dir)))
    if not listed.issuperset(map(hash, files.asset_paths(reader))):
        unlisted = {path for path in files.asset_paths(reader) if hash(path) not in listed}
        yield from (path for _, path, _ in files.delivered_files(reader) if path in unlisted)


def _listed_files(run_dir: Path) -> Iterator[str]:
    """Yield the paths of all files of assets, relative to the run directory."""
    with suppress(OSError):
        names = os.listdir(run_dir / ASSETS_NAME)
        yield from (f"{ASSETS_NAME}/{name}" for name in names)
        for folder in (f"{ASSETS_NAME}/{name}/" for name in names if len(name) == ASSET_FOLDER_CHARS):
            with suppress(OSError):
                yield from map(folder.__add__, os.listdir(run_dir / folder))


def jobs_with_lost_files(reader: sqlite3.Connection, run_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the succeeded jobs with a file that is gone, or has another size; each with the file's path."""
    # As strings, because paths take four times as long as the disk.
    folder = str(run_dir)
    for job_id, path, size in files.delivered_files(reader):
        try:
            is_there = os.stat(f"{folder}/{path}").st_size == size
        except OSError:
            is_there = False
        if not is_there:
            yield job_id, path


def refetch_lost_files(store: Store) -> None:
    """Make succeeded jobs undelivered whose files are not on this machine, so that they are downloaded again."""
    lost = {
        job_id: Failure(FailureClass.ASSET_INVALID, f"{path} was left on another machine, or lost with it")
        for job_id, path in jobs_with_lost_files(store.reader, store.run_dir)
    }
    if lost:
        with store.transaction() as connection:
            mark_undelivered(connection, lost, at=time.time())


def verify_assets(store: Store, observe: Observer) -> None:
    """Make succeeded jobs undelivered if a file of theirs is gone or has another content; every file is read."""
    lost = {
        job_id: Failure(
            FailureClass.ASSET_INVALID, f"{asset.path} is missing or was changed after its download"
        )
        for job_id, asset in files.delivered_assets(store.reader)
        if not is_complete(str(store.run_dir / asset.path), asset)
    }
    with store.transaction() as connection:
        mark_undelivered(connection, lost, at=time.time())
    message = f"files that are missing or were changed, to download again: {format_count(len(lost), 'job')}"
    observe(Notice("verified", message))
