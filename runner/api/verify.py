"""Download the files of jobs that succeeded again if they are gone or changed; they are never paid for again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, islice
from operator import not_

from runner.assets.publish import is_complete
from runner.assets.upload import is_uploaded
from runner.core.model import Asset, Failure, FailureClass
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.objects.located import Objects
from runner.store import files
from runner.store.store import Store
from runner.store.transitions import mark_undelivered

_BATCH = 256
_LOOKS_AT_ONCE = 16
"""A request takes some 30 ms."""


def refetch_lost_files(store: Store) -> None:
    """Make succeeded jobs undelivered whose files are not on this machine, so that they are downloaded again."""
    lost = {
        job_id: Failure(FailureClass.ASSET_INVALID, f"{path} was left on another machine, or lost with it")
        for job_id, path in files.jobs_with_lost_files(store.reader, store.run_dir)
    }
    if lost:
        with store.transaction() as connection:
            mark_undelivered(connection, lost, at=time.time())


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
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
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
