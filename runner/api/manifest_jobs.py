"""
The jobs of a manifest, saved in a run directory or put into the journals of all shards: all of them, or none.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.api.asset_store import chosen_store
from runner.api.budget import check_cost
from runner.api.config import apply_options, read_environment
from runner.api.job_choice import chosen_ids
from runner.api.journals import begin_journal, upload_media
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_dir import require_match
from runner.api.run_facts import (
    RunFacts,
    RunOrigin,
    facts_of,
    require_same_kind,
    save_facts,
)
from runner.api.run_ledger import with_ledger
from runner.api.shards import check_shard_options, claim_run_dir, require_same_shard
from runner.api.validate import manifest_error
from runner.core.filenames import DB_NAME, MAX_FILES_FLAT
from runner.core.lifecycle import WITH_A_TASK
from runner.core.model import JobSpec
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.core.sharding import Shard, share
from runner.core.units import format_count
from runner.disk import AnyPath
from runner.engine.events import Notice, Observer, ignore
from runner.errors import UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.store import query
from runner.store.journal import Journal
from runner.store.store import Store
from runner.store.sync import fail_invalid, sync
from runner.store.work_list import JobFilter


def load_into(
    store: Store,
    manifest: Manifest,
    settings: Settings,
    options: RunOptions,
    problems: ProblemCollector,
    series: str | None,
    environ: Mapping[str, str],
    observe: Observer = ignore,
) -> tuple[RunFacts, tuple[str, ...] | None]:
    """
    Save a manifest's jobs, and what a later process needs to continue without the manifest.

    Returns:
        That, and the ids of the jobs that the options choose; None if they choose all.
    """
    saved = facts_of(store.meta)
    if saved is None:
        origin = RunOrigin(
            str(manifest.path.absolute()), options.simulate, sharded=False, series=series, shard=options.shard
        )
    else:
        origin = saved.origin
        require_same_kind(origin, store.run_dir, simulate=options.simulate)
        require_same_shard(origin, store.run_dir, options.shard)
        if not options.simulate and not options.base_url:
            _require_same_gateway(store, saved, settings)
    asset_store = origin.asset_store
    if options.assets is not None or options.keep_local:
        asset_store = chosen_store(options, asset_store, environ)
    with store.transaction() as connection:
        jobs = _sync_jobs(connection, manifest, options, problems, observe)
        # A pattern may match no job of one shard.
        if options.job is not None and options.shard is None:
            require_match(connection, options.job)
        ids = chosen_ids(connection, options) if options.where or options.sample is not None else None
        sharded = origin.sharded or jobs > MAX_FILES_FLAT
        origin = replace(
            origin,
            sharded=sharded,
            is_real_time=options.real_time,
            asset_store=asset_store,
            scenario=options.scenario,
            env_file=None if options.env_file is None else str(options.env_file.absolute()),
        )
        facts = RunFacts(settings, origin)
        if options.shard is not None:
            claim_run_dir(store.run_dir, facts, options.shard)
        save_facts(connection, facts)
    return facts, ids


def _require_same_gateway(store: Store, saved: RunFacts, settings: Settings) -> None:
    """Refuse to poll the tasks of one gateway at another: they would look lost, and they were paid for."""
    old = gateway_root(saved.gateway)
    new = gateway_root(RunFacts(settings, saved.origin).gateway)
    counts = query.counts(store.reader)
    tasks = sum(counts[state] for state in WITH_A_TASK)
    if old != new and tasks:
        raise UsageError(
            f"{store.run_dir} has {format_count(tasks, 'task')} at {old}, and would poll them at {new}",
            hint=f"continue there with --base-url {old}, or use --base-url {new} if it is the same gateway",
        )


def _sync_jobs(
    connection: sqlite3.Connection,
    manifest: Manifest,
    options: RunOptions,
    problems: ProblemCollector,
    observe: Observer,
) -> int:
    """Check every job and save those of the shard: all, or none. Return how many jobs the whole run has."""
    now_at = time.time()
    invalid: dict[str, tuple[JobSpec, str]] = {}

    def keep_invalid(spec: JobSpec, why: str) -> None:
        invalid[spec.job_id] = spec._replace(task_id=None), why

    def invalid_specs() -> Iterator[JobSpec]:
        yield from (spec for spec, _ in invalid.values())

    def announce(count: int) -> None:
        observe(Notice("checking", f"checking the jobs: {count:,}" if count else "checking the jobs"))

    valid = manifest.jobs(problems, keep_invalid if options.skip_invalid else None, announce)
    # Those that are invalid are known only when all others were read.
    jobs: Iterator[JobSpec] = chain(valid, invalid_specs())
    if (shard := options.shard) is not None:
        # The others are read, too, so that the whole manifest is checked.
        jobs = (spec for spec in jobs if shard.has(spec.job_id))
    sync(connection, jobs, on_changed=options.on_changed, at=now_at, invalid=invalid)
    counts = manifest.counts
    if problems.errors and not (options.skip_invalid and counts and counts.is_usable):
        raise manifest_error(manifest, problems)
    fail_invalid(connection, invalid.values(), at=now_at)
    return counts.jobs - counts.invalid if counts else 0


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
    options: RunOptions = DEFAULT_OPTIONS,
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
    path, simulate = Path(manifest), options.simulate
    environ = read_environment(options, path.parent)
    problems = ProblemCollector(on_problem)
    today = datetime.now(UTC).date()
    loaded = load(path, problems, variables=options.var, today=today, is_strict=options.strict)
    settings, _ = apply_options(loaded.header.settings, options, environ)
    # Each machine finds the ledger where its directories are.
    if (budget := settings.budget) is not None:
        settings = replace(settings, budget=with_ledger(budget, None, simulate=simulate))
    if not is_governed:
        check_shard_options(replace(options, shard=Shard(0, shards)), settings)
    counts: list[int | None] = []
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        whole = Path(folder, "whole")
        with Store(whole) as store:
            facts, _ = load_into(store, loaded, settings, options, problems, None, environ)
            if is_governed:
                check_cost(store.reader, settings, options, JobFilter(), confirm_cost, is_simulated=simulate)
            with store.transaction() as connection:
                _save_shares(connection, shards)
        sharded, asset_store = facts.origin.sharded, facts.origin.asset_store
        origin, files = RunOrigin(None, simulate, sharded=sharded, asset_store=asset_store), 0
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
