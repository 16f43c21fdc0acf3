"""The journal of a run: where it is, which run it holds and which directory belongs to it, and its local files."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from runner.api.config import read_environment
from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, read_facts
from runner.api.shards import claim, shard_facts
from runner.core.filenames import INPUTS_NAME, RUN_JSON_NAME
from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.sharding import Shard
from runner.errors import RunDirError
from runner.jsontext import loads
from runner.manifest.local_files import read_checked
from runner.objects import open_store
from runner.objects.base import ObjectMissing, ObjectStore
from runner.store import rows
from runner.store.database import connect_reader
from runner.store.journal import Journal, require_conditional_create
from runner.store.local_view import remembered_journal
from runner.store.store import Store


def begin_journal(url: str, facts: RunFacts, environ: Mapping[str, str]) -> Journal:
    """
    Return the journal of a run's shard at a URL, or of the whole run; it is created if there is none.

    Raises:
        UsageError: The URL or the store can't be used for a journal.
        RunDirError: The journal holds another run, or one with another number of shards.
        ObjectStoreError: The store can't be reached, or refuses the credentials.
    """
    store = open_store(url, environ)
    require_conditional_create(store)
    shard = facts.origin.shard or Shard(0, 1)
    held = claim(store, {**shard_facts(facts, count=shard.count), "id": uuid4().hex})
    return Journal(store, str(held.get("id")), shard.index)


def journal_of(run_dir: Path, options: RunOptions = RunOptions()) -> Journal | None:
    """
    Return the journal that a run directory belongs to; None if it has none.

    Raises:
        RunDirError: The directory can't be read, or its journal is gone.
        ObjectStoreError: The store can't be reached, or refuses the credentials.
    """
    known = remembered_journal(run_dir)
    if known is None:
        return None
    with closing(connect_reader(run_dir)) as reader:
        facts = read_facts(reader)
    manifest = None if facts is None else facts.origin.manifest
    environ = read_environment(options, None if manifest is None else Path(manifest).parent)
    store = open_store(known.url, environ)
    require_conditional_create(store)
    try:
        held = json.loads(store.get(RUN_JSON_NAME))
    except (ObjectMissing, ValueError):
        held = {}
    if held.get("id") != known.run_id:
        raise RunDirError(
            f"{known.url} does not hold the journal of {run_dir}",
            hint="restore it: without it nobody knows what was paid for since",
        )
    return Journal(store, known.run_id, known.index)


_FOLDER = "media"
_REQUESTS = "SELECT seq, request FROM specs JOIN jobs USING (seq) WHERE has_files"


def upload_media(database: Path, store: ObjectStore) -> int:
    """
    Upload the local files of all requests of a ``run.db``; return how many there are.

    Raises:
        FileChanged: One is not what it was when it was checked.
        ObjectStoreError: The store can't be used.
    """
    done: set[str] = set()
    with closing(sqlite3.connect(database)) as connection:
        for _, text in connection.execute(_REQUESTS):
            for reference in _references(loads(text)):
                digest = reference["sha256"]
                if digest in done:
                    continue
                content = read_checked(reference)
                done.add(digest)
                try:
                    store.head(f"{_FOLDER}/{digest}")
                except ObjectMissing:
                    store.put(f"{_FOLDER}/{digest}", content, content_type=reference["media_type"])
    return len(done)


def fetch_media(store: Store, journal: Journal) -> int:
    """
    Put the files that requests name and this machine lacks into the run directory, as far as the journal has them.

    Returns:
        How many requests name such a file now.

    Raises:
        ObjectStoreError: The journal's store can't be used.
        RunDirError: ``run.db`` can't be written.
        OSError: A file can't be written.
    """
    changed = []
    for seq, text in store.reader.execute(_REQUESTS).fetchall():
        request = loads(text)
        found = [_fetch(reference, store.run_dir, journal.store) for reference in _references(request)]
        if any(found):
            changed.append((rows.canonical(request), seq))
    if changed:
        with store.transaction() as connection:
            connection.executemany("UPDATE specs SET request = ? WHERE seq = ?", changed)
    return len(changed)


def _fetch(reference: dict[str, Json], run_dir: Path, media: ObjectStore) -> bool:
    """Let a reference name a file here, if it names none and the journal has it; return whether it changed."""
    if os.path.exists(reference[FILE_KEY]):
        return False
    digest = str(reference["sha256"])
    path = run_dir.absolute() / INPUTS_NAME / f"{digest}{Path(reference[FILE_KEY]).suffix}"
    if not path.exists():
        try:
            content = media.get(f"{_FOLDER}/{digest}")
        except ObjectMissing:
            return False
        if sha256(content).hexdigest() != digest:
            return False
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    reference[FILE_KEY] = str(path)
    return True


def _references(value: Json) -> Iterator[dict[str, Json]]:
    if isinstance(value, dict) and is_file_reference(value):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _references(item)
