"""Runs that are known by the URL of their journal: read from anywhere, or worked on in a directory here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.run_facts import SNAPSHOT, default_run_dir, read_facts, save_facts
from runner.core.filenames import DB_NAME, RUN_JSON_NAME, safe_name
from runner.core.sharding import Shard
from runner.errors import StoreMissing, UsageError
from runner.objects import open_store
from runner.objects.base import ObjectMissing, ObjectStore
from runner.store.copy_rows import copy_rows
from runner.store.journal import Contents, Journal
from runner.store.local_view import write_view
from runner.store.place import RETIRED
from runner.store.store import Store


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
