"""The journal of a run: where it is, which run it holds, and which one a run directory belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from runner.api.config import read_environment
from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, read_facts
from runner.api.shards import claim, shard_facts
from runner.core.filenames import RUN_JSON_NAME
from runner.core.sharding import Shard
from runner.errors import RunDirError
from runner.objects import open_store
from runner.objects.port import ObjectMissing
from runner.store.database import connect_reader
from runner.store.journal import Journal, require_conditional_create
from runner.store.local_view import remembered_journal


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
