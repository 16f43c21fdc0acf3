"""Download the files of jobs that succeeded again if they are gone or changed; they are never paid for again."""

from __future__ import annotations

import time

from runner.assets.publish import is_complete
from runner.core.model import Failure, FailureClass
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.store import files
from runner.store.store import Store
from runner.store.transitions import mark_undelivered


def refetch_lost_files(store: Store) -> None:
    """Make succeeded jobs undelivered whose files are not on this machine, so that they are downloaded again."""
    lost = {
        job_id: Failure(FailureClass.ASSET_INVALID, f"{path} was left on another machine, or lost with it")
        for job_id, path in files.jobs_with_lost_files(store.reader, store.run_dir)
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
