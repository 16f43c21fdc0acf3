"""
The files of jobs and uploads: what ``run.db`` knows of them, how far they have come, and which are gone.
"""

from __future__ import annotations

import json
import os
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import Struct

from runner.core.filenames import ASSET_FOLDER_CHARS, ASSETS_NAME
from runner.core.model import Asset, Job
from runner.store import rows, takes
from runner.store.work_list import JobFilter


class UploadState(StrEnum):
    """The states of an upload, in their order."""

    STARTED = "started"
    """It was sent, or is about to be."""
    PROCESSING = "processing"
    """The asset library has it under a task; it has no asset yet."""
    REVIEW = "review"
    """The asset library has an asset of it, and has not approved it yet."""
    READY = "ready"
    REFUSED = "refused"
    """The asset library does not approve it."""


class Upload(Struct, frozen=True):
    """
    One file on its way to one target.

    Attributes:
        digest: SHA-256 of its content.
        target: As the manifest names it.
        address: Where it is, by its state: the id of a task, ``asset://ID``, an object's URL, or why it was refused.
            Never an address that is signed.
        expires_at: When it must be looked for again; None if it stays.
    """

    digest: str
    target: str
    state: UploadState
    address: str = ""
    expires_at: float | None = None


def is_ready(upload: Upload | None, now_at: float) -> bool:
    """Return whether a file is where models can read it, and is not to be looked for again."""
    if upload is None or upload.state is not UploadState.READY:
        return False
    return upload.expires_at is None or upload.expires_at > now_at


def file_name(source: str, digest: str) -> str:
    """
    Return the name of an upload: of the file's own name what every store takes, and its digest.

    >>> file_name("/frames/Ängste 1.PNG", "9f2c" * 16)
    'ngste-1-9f2c9f2c9f2c9f2c.png'
    """
    stem, dot, suffix = source.rpartition("/")[2].rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in stem).strip("-")[:40]
    ending = "".join(char for char in suffix.lower() if char.isascii() and char.isalnum())[:10]
    return f"{kept or 'file'}-{digest[:16]}" + (f".{ending}" if ending else "")


def object_name(source: str, digest: str) -> str:
    """
    Return the name of an object: its digest, and the suffix of the file's name.

    >>> object_name("/frames/1.PNG", "9f2c")
    '9f2c.png'
    """
    ending = file_name(source, digest).rpartition(".")
    return digest + (f".{ending[2]}" if ending[1] else "")


_BATCH = 500

MAX_SIZES = 20_000
"""With more files, only their names are checked: asking for the size of each takes ten times as long."""


_DELIVERED = "FROM jobs j JOIN assets a ON a.seq = j.seq AND a.attempt = j.attempt"
_SUCCEEDED = "j.state = 'succeeded'"
_UPLOADED = (
    "EXISTS (SELECT 1 FROM asset_urls u WHERE u.seq = a.seq AND u.attempt = a.attempt "
    "AND json_extract(u.urls, '$.' || a.kind) IS NOT NULL)"
)


def delivered_assets(
    connection: sqlite3.Connection, *, only_uploaded: bool = False
) -> Iterator[tuple[str, Asset]]:
    """Read the assets of the jobs that succeeded, each with its job's id, in manifest order."""
    if only_uploaded and not has_uploads(connection):
        return
    where = f"{_SUCCEEDED} AND {_UPLOADED}" if only_uploaded else _SUCCEEDED
    cursor = connection.execute(f"SELECT j.job_id, a.* {_DELIVERED} WHERE {where} ORDER BY j.idx")
    while batch := cursor.fetchmany(_BATCH):
        urls = takes.texts_by_attempt(connection, "asset_urls", json.dumps([seq for _, seq, *_ in batch]))
        for job_id, *asset in batch:
            yield job_id, rows.read_asset(asset, {}, urls=urls)


def delivered_files(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """
    Read the path and size in bytes of each file of the jobs that succeeded, with its job's id.

    Without those that are in an object store, whether they are here as well or not.
    """
    # Not sorted by the index of the jobs, which takes a third of the time; mostly they are in that order.
    where = f"{_SUCCEEDED} AND NOT {_UPLOADED}" if has_uploads(connection) else _SUCCEEDED
    yield from connection.execute(
        f"SELECT j.job_id, a.path, a.bytes {_DELIVERED} WHERE {where} ORDER BY j.idx"
    )


def uploaded_paths(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the paths of the files of succeeded jobs that are in an object store, whether they are here as well or not."""
    if has_uploads(connection):
        yield from chain.from_iterable(
            connection.execute(f"SELECT a.path {_DELIVERED} WHERE {_SUCCEEDED} AND {_UPLOADED}")
        )


def all_uploaded(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the paths of all files that were uploaded, those of old takes too, in no particular order."""
    if not has_uploads(connection):
        return
    for table in ("assets", "old_assets"):
        yield from chain.from_iterable(
            connection.execute(
                f"SELECT path FROM {table} a JOIN asset_urls u USING (seq, attempt) "
                "WHERE json_extract(u.urls, '$.' || a.kind) IS NOT NULL"
            )
        )


def upload_of(connection: sqlite3.Connection, path: str) -> str | None:
    """Return the URL of the file that has, or had, a path; None if it was not uploaded."""
    if not has_uploads(connection):
        return None
    row = connection.execute(
        "SELECT json_extract(u.urls, '$.' || a.kind) FROM assets a JOIN asset_urls u USING (seq, attempt) WHERE path = ?",
        (path,),
    ).fetchone()
    return None if row is None else row[0]


def has_uploads(connection: sqlite3.Connection) -> bool:
    """Return whether any asset is in an object store."""
    return connection.execute("SELECT 1 FROM asset_urls LIMIT 1").fetchone() is not None


def count_assets(connection: sqlite3.Connection) -> int:
    """Count the files of all jobs."""
    return int(connection.execute("SELECT count(*) FROM assets").fetchone()[0])


def asset_paths(connection: sqlite3.Connection) -> Iterator[str]:
    """Read the paths of the files of all jobs, in no particular order."""
    return chain.from_iterable(connection.execute("SELECT path FROM assets"))


def asset_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the sizes of all assets in bytes, by path."""
    sql = "SELECT path, bytes FROM assets UNION ALL SELECT path, bytes FROM old_assets"
    return dict(connection.execute(sql).fetchall())


def parts_of(connection: sqlite3.Connection, job: Job) -> dict[str, Mapping[str, Any]]:
    """Read what is known of the unfinished downloads of a job's current attempt, by kind of asset."""
    cursor = connection.execute(
        "SELECT kind, facts FROM parts WHERE seq = ? AND attempt = ?", (job.seq, job.attempt)
    )
    return {kind: json.loads(facts) for kind, facts in cursor}


def lost_files(connection: sqlite3.Connection, run_dir: Path, *, max_sizes: int = MAX_SIZES) -> Iterator[str]:
    """
    Yield the paths of succeeded jobs' files that are gone, except for those that were uploaded.

    In a run with at most ``max_sizes`` files, one with another size counts as gone.
    """
    count = count_assets(connection)
    if count <= max_sizes:
        yield from (path for _, path in jobs_with_lost_files(connection, run_dir))
        return
    # Of the names, only their hashes are kept: they are compared faster, and take a tenth of the memory.
    listed = array("q", map(hash, listed_files(run_dir)))
    if len(listed) >= count:
        known = array("q", map(hash, asset_paths(connection)))
        if (len(listed) == count and sum(listed) == sum(known)) or set(listed).issuperset(known):
            return
    there = set(listed)
    yield from (path for _, path, _ in delivered_files(connection) if hash(path) not in there)


def listed_files(run_dir: Path) -> Iterator[str]:
    """Yield the paths of all files of assets, relative to the run directory."""
    with suppress(OSError):
        names = os.listdir(run_dir / ASSETS_NAME)
        folders = [f"{ASSETS_NAME}/{name}/" for name in names if len(name) == ASSET_FOLDER_CHARS]
        yield from (f"{ASSETS_NAME}/{name}" for name in names if len(name) != ASSET_FOLDER_CHARS)
        for folder in folders:
            with suppress(OSError):
                yield from map(folder.__add__, os.listdir(run_dir / folder))


def jobs_with_lost_files(connection: sqlite3.Connection, run_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the succeeded jobs with a file that is gone, or has another size; each with the file's path."""
    # As strings, because paths take four times as long as the disk.
    folder = str(run_dir)
    for job_id, path, size in delivered_files(connection):
        try:
            is_there = os.stat(f"{folder}/{path}").st_size == size
        except OSError:
            is_there = False
        if not is_there:
            yield job_id, path


_WITH_FILES = "state = 'pending' AND has_files AND NOT is_gone AND specs.task_id IS NULL"


def read_uploads(connection: sqlite3.Connection, target: str) -> dict[str, Upload]:
    """Read the uploads to a target, by digest."""
    rows = connection.execute(
        "SELECT digest, state, address, expires_at FROM uploads WHERE target = ?", (target,)
    )
    return {
        digest: Upload(digest, target, UploadState(state), address, expires_at)
        for digest, state, address, expires_at in rows
    }


def requests_with_files(connection: sqlite3.Connection, scope: JobFilter) -> Iterator[str]:
    """Read the requests of the jobs to submit that have local files, in manifest order."""
    where, values = scope.condition()
    for (request,) in connection.execute(
        f"SELECT specs.request FROM jobs JOIN specs USING (seq) WHERE {_WITH_FILES} {where} ORDER BY idx",
        values,
    ):
        yield request
