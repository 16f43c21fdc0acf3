"""Put a manifest's jobs into the journals of all its shards, so that the machines that work on them need no manifest."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.budget import check_cost
from runner.api.config import apply_options, read_environment
from runner.api.journals import begin_journal, upload_media
from runner.api.manifest_jobs import load_into
from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, RunOrigin, save_facts
from runner.api.run_ledger import with_ledger
from runner.api.shards import check_shard_options
from runner.core.filenames import DB_NAME
from runner.core.problem import Problem
from runner.core.sharding import Shard, share
from runner.engine.events import ignore
from runner.input_files import AnyPath
from runner.manifest.loader import ProblemCollector, load
from runner.store.job_filter import JobFilter
from runner.store.journal import Journal
from runner.store.store import Store

_OF_JOBS = ("jobs", "specs", "attempts")


class Prepared(Struct, frozen=True):
    """
    What was put into journals.

    Attributes:
        jobs: How many jobs each shard has, by its index; None for one that had begun before, which was left as it is.
        files: How many local files were uploaded.
    """

    jobs: tuple[int | None, ...]
    files: int


def prepare(
    manifest: AnyPath,
    journal: str,
    shards: int,
    *,
    options: RunOptions = RunOptions(),
    on_problem: Callable[[Problem], None] = ignore,
    is_governed: bool = False,
    confirm_cost: Callable[[str], bool] | None = None,
) -> Prepared:
    """
    Read and check a manifest once, and put each shard's jobs into its journal. Nothing is submitted.

    Args:
        journal: The URL of the run's journal.
        shards: Their number, which never changes.
        is_governed: Whether the shards share their limits, which are not divided then.
        confirm_cost: Asks whether to submit, and pay; None if there is nobody to ask.

    Raises:
        NotConfirmed: The answer was no.
        ManifestError: The manifest has errors; nothing was written.
        UsageError: A limit can't be divided by the number of shards, or the URL can't be used for a journal.
        RunDirError: The journal holds another run, or one with another number of shards.
        ObjectStoreError: The store can't be used.
    """
    path = Path(manifest)
    environ = read_environment(options, path.parent)
    problems = ProblemCollector(on_problem)
    today = datetime.now(UTC).date()
    loaded = load(path, problems, variables=options.var, today=today, is_strict=options.strict)
    settings, _ = apply_options(loaded.settings, options, environ)
    # Each machine finds the ledger where its directories are.
    settings = with_ledger(settings, None, simulate=options.simulate)
    if not is_governed:
        check_shard_options(replace(options, shard=Shard(0, shards)), settings)
    counts: list[int | None] = []
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        whole = Path(folder, "whole")
        with Store(whole) as store:
            facts, _ = load_into(store, loaded, settings, options, problems, None, environ)
            if is_governed:
                check_cost(
                    store.reader, settings, options, JobFilter(), confirm_cost, is_simulated=options.simulate
                )
            with store.transaction() as connection:
                _save_shares(connection, shards)
        origin = RunOrigin(
            None, options.simulate, sharded=facts.origin.sharded, asset_store=facts.origin.asset_store
        )
        files = 0
        for index in range(shards):
            own = RunFacts(settings, replace(origin, shard=Shard(index, shards)))
            log = begin_journal(journal, own, environ)
            if index == 0:
                files = upload_media(whole / DB_NAME, log.store)
            counts.append(
                None if log.has_begun() else _fill(log, whole / DB_NAME, Path(folder, str(index)), own)
            )
    return Prepared(tuple(counts), files)


def _fill(log: Journal, whole: Path, part: Path, facts: RunFacts) -> int:
    """Put one shard's jobs into its journal, and return how many there are."""
    with Store(part) as store:
        jobs = _write_part(whole, store, facts)
    with Store(part, journal=log):
        pass
    shutil.rmtree(part)
    return jobs


def _save_shares(whole: sqlite3.Connection, shards: int) -> None:
    """Note which shard each job is in, so that a shard's jobs are found without looking at all."""
    whole.create_function("share", 1, lambda job_id: share(job_id, shards), deterministic=True)
    whole.execute("CREATE TABLE shares (shard INTEGER, seq INTEGER, PRIMARY KEY (shard, seq)) WITHOUT ROWID")
    whole.execute("INSERT INTO shares SELECT share(job_id), seq FROM jobs")


def _write_part(whole: Path, part: Store, facts: RunFacts) -> int:
    """Write one shard's jobs, and return how many there are."""
    shard = facts.origin.shard
    assert shard is not None
    own = "seq IN (SELECT seq FROM whole.shares WHERE shard = ?)"
    with part.attached(whole, "whole"), part.transaction() as connection:
        for table in _OF_JOBS:
            connection.execute(
                f"INSERT INTO main.{table} SELECT * FROM whole.{table} WHERE {own}", (shard.index,)
            )
        save_facts(connection, facts)
        (count,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
        return int(count)
