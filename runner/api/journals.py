"""
The journal of a run: where it is, which run it holds, which directory belongs to it, and the run by its URL.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from runner.api.config import read_environment
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_facts import SNAPSHOT, RunFacts, default_run_dir, read_facts, save_facts
from runner.api.shards import claim, shard_facts
from runner.core.filenames import DB_NAME, INPUTS_NAME, RUN_JSON_NAME, safe_name
from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.core.sharding import Shard
from runner.errors import RunDirError, StoreMissing, UsageError
from runner.jsontext import loads
from runner.manifest.file_references import read_checked
from runner.objects import open_store
from runner.objects.base import ObjectMissing, ObjectStore
from runner.store import rows
from runner.store.database import reading
from runner.store.journal import Contents, Journal, require_conditional_create
from runner.store.local_view import copy_rows, remembered_journal, write_view
from runner.store.lock import RETIRED
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


def journal_of(run_dir: Path, options: RunOptions = DEFAULT_OPTIONS) -> Journal | None:
    """
    Return the journal that a run directory belongs to; None if it has none.

    Raises:
        RunDirError: The directory can't be read, or its journal is gone.
        ObjectStoreError: The store can't be reached, or refuses the credentials.
    """
    known = remembered_journal(run_dir)
    if known is None:
        return None
    with reading(run_dir) as reader:
        facts = read_facts(reader)
    manifest = None if facts is None else facts.origin.manifest
    environ = read_environment(options, None if manifest is None else Path(manifest).parent)
    store = open_store(known.url, environ)
    require_conditional_create(store)
    try:
        held = json.loads(store.get(RUN_JSON_NAME))
    except (ObjectMissing, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("id") != known.run_id:
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


class JournaledRun(Struct, frozen=True):
    """A run as its journal names it."""

    store: ObjectStore
    run_id: str
    name: str
    gateway: str
    shards: int

    def journal(self, index: int) -> Journal:
        """Return the journal of a shard."""
        return Journal(self.store, self.run_id, index)


def find_run(url: str, environ: Mapping[str, str]) -> JournaledRun:
    """
    Read which run a journal holds.

    Raises:
        StoreMissing: There is no journal at the URL.
        UsageError: It is not the URL of an object store, or the extra for it is not installed.
        ObjectStoreError: The store can't be used.
    """
    store = open_store(url, environ)
    try:
        held = json.loads(store.get(RUN_JSON_NAME))
        # The name becomes a folder's here, and anybody may have written it.
        name = safe_name(str(held["run"]))
        return JournaledRun(store, held["id"], name, held["gateway"], int(held["shards"]))
    except (ObjectMissing, ValueError, KeyError, TypeError):
        raise StoreMissing(
            f"there is no journal at {store.url}", hint="name the URL that was given to runner run --journal"
        ) from None


def write_snapshot(run: JournaledRun, folder: Path) -> Path:
    """
    Write a run directory of what the journals of all shards hold now; their owners are not disturbed. Files are not there.

    Args:
        folder: An empty folder, in which the directory is created.

    Raises:
        StoreMissing: No shard has begun.
        StoreDamaged, ObjectStoreError: A journal can't be read.
    """
    run_dir, shard_db = folder / run.name, folder / "shard.db"
    facts = None
    with Store(run_dir) as store:
        for index in range(run.shards):
            journal = run.journal(index)
            contents = journal.read()
            if contents.base is None:
                continue
            write_view(shard_db, journal, contents)
            copy_rows(store, shard_db)
            if facts is None:
                with closing(sqlite3.connect(shard_db)) as reader:
                    facts = read_facts(reader)
            shard_db.unlink()
        if facts is None:
            raise StoreMissing(
                f"nothing was begun yet in {run.store.url}", hint="runner run MANIFEST --journal URL"
            )
        with store.transaction() as connection:
            save_facts(connection, replace(facts, origin=replace(facts.origin, shard=None)))
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (SNAPSHOT,))
    return run_dir


def has_shards(run: JournaledRun) -> bool:
    """
    Return whether a run is worked on in shards, be it one; its owners are not disturbed.

    Raises:
        StoreDamaged, ObjectStoreError: The journal can't be read.
    """
    journal = run.journal(0)
    if run.shards > 1 or (contents := journal.read()).base is None:
        return True
    with TemporaryDirectory(prefix="runner-") as folder:
        database = Path(folder, DB_NAME)
        write_view(database, journal, contents)
        with closing(sqlite3.connect(database)) as reader:
            facts = read_facts(reader)
    return facts is None or facts.origin.shard is not None


def check_out(run: JournaledRun, *, shard: Shard | None = None, folder: Path | None = None) -> list[Path]:
    """
    Make directories here for the shards of a run, each up to date with its journal, and return them.

    A shard that somebody works on is taken over. One that was merged is only read. Shards that have not begun are left out.

    Args:
        shard: Only this one.
        folder: Where to create them; by default each where `runner run` would.

    Raises:
        UsageError: The run has another number of shards.
        RunDirError: A directory holds another run.
        ObjectStoreError, StoreDamaged: A journal can't be read.
    """
    if shard is not None and shard.count != run.shards:
        raise UsageError(
            f"{run.store.url} has shards {run.shards}, and this would be {shard}",
            hint=f"use --shard I/{run.shards}",
        )
    found = []
    for index in range(run.shards) if shard is None else (shard.index,):
        journal = run.journal(index)
        own = Shard(index, run.shards) if run.shards > 1 else None
        run_dir = default_run_dir(
            Path("manifest.yaml"), run.name, simulate=run.gateway == "simulator", shard=own
        )
        if folder is not None:
            run_dir = folder / run_dir.name
        contents = journal.read()
        if contents.base is None:
            continue
        if contents.successor is not None:
            _write_retired(run_dir, journal, contents)
        else:
            with Store(run_dir, journal=journal):
                pass
        found.append(run_dir)
    return found


def _write_retired(run_dir: Path, journal: Journal, contents: Contents) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    write_view(run_dir / DB_NAME, journal, contents)
    with Store(run_dir, may_be_retired=True) as store, store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (RETIRED, contents.successor))
