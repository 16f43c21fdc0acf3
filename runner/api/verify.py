"""Look for the files of jobs that succeeded: what has vanished or changed is downloaded again, and never paid for again."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from runner.assets.publish import is_complete
from runner.core.model import Failure, FailureClass
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.store import query
from runner.store.store import Store
from runner.store.transitions import mark_undelivered


def jobs_with_lost_files(reader: sqlite3.Connection, run_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the succeeded jobs with a file that is gone, or has another size; each with the file's path."""
    # As strings: `status` looks at a million files, and paths took four times as long as the disk.
    folder = str(run_dir)
    for job_id, path, size in query.delivered_files(reader):
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
        for job_id, asset in query.delivered_assets(store.reader)
        if not is_complete(str(store.run_dir / asset.path), asset)
    }
    with store.transaction() as connection:
        mark_undelivered(connection, lost, at=time.time())
    message = f"files that are missing or were changed, to download again: {format_count(len(lost), 'job')}"
    observe(Notice("verified", message))
