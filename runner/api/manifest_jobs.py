"""The jobs of a manifest, saved in a run directory: all of those that the process works on, or none."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from msgspec.structs import replace

from runner.api.asset_store import chosen_store
from runner.api.job_choice import chosen_ids
from runner.api.options import RunOptions
from runner.api.run_dir import require_match
from runner.api.run_facts import (
    RunFacts,
    RunOrigin,
    read_facts,
    require_same_kind,
    save_facts,
)
from runner.api.shards import claim_run_dir, own_jobs, require_same_shard
from runner.api.validate import manifest_error
from runner.core.filenames import MAX_FILES_FLAT
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.model import Failure, FailureClass, JobRecord, JobSpec
from runner.core.settings import Settings
from runner.core.units import format_count
from runner.errors import UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.loader import Manifest, ProblemCollector
from runner.store import query
from runner.store.store import Store
from runner.store.sync import sync
from runner.store.transitions import import_records


def load_into(
    store: Store,
    manifest: Manifest,
    settings: Settings,
    options: RunOptions,
    problems: ProblemCollector,
    series: str | None,
    environ: Mapping[str, str],
) -> tuple[RunFacts, tuple[str, ...] | None]:
    """
    Save a manifest's jobs, and what a later process needs to continue without the manifest.

    Returns:
        That, and the ids of the jobs that the options choose; None if they choose all.
    """
    saved = read_facts(store.reader)
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
    asset_store = chosen_store(options, origin.asset_store, environ)
    with store.transaction() as connection:
        jobs = _sync_jobs(connection, manifest, options, problems)
        if options.shard is None:
            # A pattern may match no job of one shard.
            require_match(connection, options.job)
        ids = chosen_ids(connection, options)
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
        claim_run_dir(store.run_dir, facts)
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
    connection: sqlite3.Connection, manifest: Manifest, options: RunOptions, problems: ProblemCollector
) -> int:
    """Check every job and save those of the shard: all, or none. Return how many jobs the whole run has."""
    now_at = time.time()
    invalid: list[JobRecord] = []

    def keep_invalid(spec: JobSpec, why: str) -> None:
        invalid.append(_failed_record(spec, why, now_at))

    jobs = manifest.jobs(problems, keep_invalid if options.skip_invalid else None)
    shard = options.shard
    sync(connection, own_jobs(jobs, shard), on_changed=options.on_changed, at=now_at)
    counts = manifest.counts
    if problems.errors and not (options.skip_invalid and counts and counts.is_usable):
        raise manifest_error(manifest, problems)
    import_records(
        connection, (record for record in invalid if shard is None or shard.has(record.job_id)), at=now_at
    )
    return counts.jobs - counts.invalid if counts else 0


def _failed_record(spec: JobSpec, why: str, now_at: float) -> JobRecord:
    return JobRecord(
        job_id=spec.job_id,
        index=spec.index,
        model=spec.model,
        schema=spec.schema,
        request=spec.request,
        digest=spec.digest,
        metadata=spec.metadata,
        state=State.FAILED,
        timeout_s=spec.timeout_s,
        finished_at=now_at,
        error=Failure(FailureClass.INVALID_REQUEST, why[:500]),
        source=spec.source,
    )
