"""
Where the files of a run are: which are uploaded to an object store, which stay here, and which are gone.

Files that are gone or have changed are downloaded again, and never paid for again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import compress, islice
from operator import not_
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from runner.api.config import RunConfig
from runner.api.options import RunOptions
from runner.api.run_facts import AssetStore, RunFacts, RunOrigin, save_facts
from runner.assets.publish import ObjectUploader, is_complete, is_uploaded
from runner.core.filenames import PART_SUFFIX
from runner.core.model import Asset, Failure, FailureClass, JobRecord
from runner.core.settings import Settings
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.errors import RunnerError, UsageError
from runner.objects import UPLOAD_REQUEST_S, Objects, open_store, require_uploads
from runner.objects.base import ObjectMissing, ObjectStore
from runner.store import files
from runner.store.local_view import REBUILT
from runner.store.store import Store
from runner.store.takes import unchecked_paths
from runner.store.transitions import mark_undelivered
from runner.worker.deliver import RetryPauses

_BATCH = 256
_REQUESTS_AT_ONCE = 16
"""A request takes some 30 ms."""
PRESIGNED_S = 7 * 86400.0
"""The longest time that S3 allows."""


def open_assets(url: str, environ: Mapping[str, str]) -> ObjectStore:
    """
    Return the store at the URL that ``--assets`` names. Nothing is read or written.

    Raises:
        UsageError: It is not such a URL, or the extra for it is not installed.
        ObjectStoreError: What the environment says does not fit together.
    """
    if "%" in url and not url.startswith("file:"):
        raise UsageError(f"{url} has a percent sign", hint="write the names of folders as they are")
    return open_store(url, environ, request_s=UPLOAD_REQUEST_S)


def chosen_store(
    options: RunOptions, known: AssetStore | None, environ: Mapping[str, str]
) -> AssetStore | None:
    """
    Return where a run uploads its assets from now on; a store that is new to it is tried first.

    Args:
        known: Where it did so far.

    Raises:
        UsageError: It is no URL of a store, or there is none whose files could be kept here.
        ObjectStoreError: Nothing can be uploaded there.
    """
    if options.assets is not None:
        store = open_assets(options.assets, environ)
        if known is None or known.url != store.url:
            require_uploads(store)
        return AssetStore(store.url, options.keep_local)
    if not options.keep_local:
        return known
    if known is None:
        raise UsageError("--keep-local needs --assets", hint="without it, all files stay here anyway")
    return AssetStore(known.url, keeps_local=True)


def with_chosen_store(
    store: Store, saved: RunFacts, options: RunOptions, environ: Mapping[str, str]
) -> RunOrigin:
    """
    Return where a run that continues comes from, with the store that options choose; from then on the run keeps to it.

    Raises:
        UsageError, ObjectStoreError: As for `chosen_store`.
    """
    origin = saved.origin
    chosen = chosen_store(options, origin.asset_store, environ)
    if chosen != origin.asset_store:
        origin = replace(origin, asset_store=chosen)
        with store.transaction() as connection:
            save_facts(connection, replace(saved, origin=origin))
    return origin


async def open_uploader(
    url: str, environ: Mapping[str, str], settings: Settings, pauses: RetryPauses
) -> ObjectUploader:
    """
    Return what uploads the assets of a run to a URL, after a test whether it can.

    Raises:
        UsageError, ObjectStoreError: It can't, so that nothing should be paid for.
    """
    store = open_assets(url, environ)
    await asyncio.to_thread(require_uploads, store)
    return ObjectUploader(
        store,
        environ,
        retry=settings.retry,
        limit_s=settings.timeouts.download_s,
        sleep=pauses.sleep,
        draw=random.random,
    )


def keeps_local(config: RunConfig) -> bool:
    """Return whether files stay here after their upload: permanently, or until they are checked."""
    store = config.origin.asset_store
    return store is None or store.keeps_local or bool(config.settings.checks) or config.hook is not None


def remove_uploaded(store: Store, config: RunConfig) -> None:
    """Delete files that were uploaded, and checked, and that a process did not delete because it was killed."""
    listed = set(files.listed_files(store.run_dir))
    if not listed:
        return
    needed = set(unchecked_paths(store.reader)) if keeps_local(config) else set()
    for path in files.uploaded_paths(store.reader):
        if path in listed and path not in needed:
            with suppress(OSError):
                os.unlink(store.run_dir / path)


class LocalFiles:
    """
    The files of jobs while something reads them here.

    Args:
        environ: The environment, for the stores that have them.
    """

    def __init__(self, run_dir: Path, origin: RunOrigin, environ: Mapping[str, str]) -> None:
        self._run_dir = run_dir
        self._store = origin.asset_store
        self._environ = environ

    @asynccontextmanager
    async def of(self, record: JobRecord) -> AsyncIterator[None]:
        """Fetch the files of a job that are elsewhere, as far as possible, and delete them when the block ends."""
        uploaded = [asset for asset in record.assets if asset.url is not None]
        if not uploaded:
            yield
            return
        await asyncio.to_thread(self._fetch, uploaded)
        yield
        if self._store is not None and not self._store.keeps_local:
            for asset in uploaded:
                with suppress(OSError):
                    os.unlink(self._run_dir / asset.path)

    def _fetch(self, assets: list[Asset]) -> None:
        objects = Objects(self._environ)
        for asset in assets:
            path = self._run_dir / asset.path
            if path.exists():
                continue
            part = path.with_name(f"{path.name}{PART_SUFFIX}")
            with suppress(RunnerError, ObjectMissing, OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                store, name = objects.at(asset.url or "")
                with part.open("wb") as file:
                    for block in store.read(name):
                        file.write(block)
                if is_complete(str(part), asset):
                    part.replace(path)
                else:
                    part.unlink()


class AssetAddresses:
    """
    Where a page in the run directory finds assets.

    Args:
        environ: The environment, for credentials.
        is_served: Whether a server has what is in folders of this machine at the assets' paths.

    Attributes:
        origins: The web servers that addresses were given of; those addresses are good for `PRESIGNED_S`.
    """

    def __init__(self, run_dir: Path, environ: Mapping[str, str], *, is_served: bool = False) -> None:
        self._run_dir = run_dir
        self._objects = Objects(environ)
        self._is_served = is_served
        self.origins: set[str] = set()

    def __call__(self, asset: Asset) -> str:
        """Return a path relative to the run directory, or a web address; one in a bucket is signed, and so a secret."""
        url = asset.url
        if url is None or (self._run_dir / asset.path).exists():
            return asset.path
        if (path := file_of(url)) is not None:
            return asset.path if self._is_served else os.path.relpath(path, os.path.realpath(self._run_dir))
        try:
            store, name = self._objects.at(url)
            address = store.presign(name, PRESIGNED_S)
        except RunnerError:
            # It may be foreign: the page names the file, and links to nothing.
            return asset.path
        parts = urlsplit(address)
        self.origins.add(f"{parts.scheme}://{parts.netloc}")
        return address


def file_of(url: str) -> Path | None:
    """
    Return the path of an object in a folder of this machine; None if it is elsewhere.

    >>> file_of("file:///srv/a%20b.mp4").as_posix(), file_of("s3://bucket/a.mp4")
    ('/srv/a b.mp4', None)
    """
    return Path(unquote(url.removeprefix("file://"))) if url.startswith("file:///") else None


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
