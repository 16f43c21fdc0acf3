"""Run a manifest, and go on with a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from runner.api import run_facts
from runner.api.notify import told
from runner.api.options import Effective, IfLocked, RunOptions, credentials, read_environment, settle
from runner.api.rerun import retry_failed
from runner.api.run_dir import (
    assignment,
    opened,
    origin_of,
    remember,
    remembered,
    require_run,
    with_time_left,
)
from runner.api.simulate import hurried, simulated_keys
from runner.api.validate import refusal
from runner.api.work import Outcome, Started, ignore_engine, ignore_event, work
from runner.core.filenames import MAX_FILES_FLAT
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord, JobSpec
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.engine.events import Observer
from runner.errors import UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.loader import Manifest, Problems, load
from runner.store import Store, query
from runner.store.sync import SyncReport, sync
from runner.store.transitions import import_records

_CUT_SHORT = (130, 143, 3)
"""Exit codes after which no older run is deleted: something is wrong, and it may be wanted."""

__all__ = ["IfLocked", "RunOptions", "resume", "run"]


async def run(
    manifest: Path,
    *,
    output: Path | None = None,
    options: RunOptions = RunOptions(),
    observe: Observer = ignore_event,
    report: Callable[[Problem], None] = ignore_event,
    started: Started = ignore_engine,
) -> Outcome:
    """
    Run a manifest: submit what is new, poll and fetch what was submitted, and write the results.

    The same call again goes on where the first one stopped, and does nothing when all is done.

    Args:
        output: The run directory; by default ``output/`` and the manifest's name. ``${date}`` in it is today in UTC.
        observe: Gets events as they happen.
        report: Gets the manifest's problems, warnings included, as they are found.
        started: Gets the engine, to stop it.

    Raises:
        ManifestError: The manifest has errors; nothing was sent.
        CredentialsMissing: No key is set; nothing was sent.
        RunDirError: The run directory can't be used.
        UsageError: Options do not fit the run that the directory holds.
    """
    began = time.monotonic()
    today = datetime.now(UTC).date()
    environ = read_environment(options.overrides, manifest.parent)
    problems = Problems()

    def note(problem: Problem) -> None:
        problems(problem)
        report(problem)

    loaded = load(manifest, note, variables=options.variables, today=today, is_strict=options.strict)
    effective = _in_force(loaded.settings, options, environ)
    settings = effective.settings
    keys = simulated_keys() if options.simulate else credentials(settings, environ)
    run_dir = run_facts.dated(
        output or run_facts.default_run_dir(loaded.name, simulate=options.simulate), today
    )
    is_series = options.keep_runs is not None or options.keep_days is not None
    if is_series:
        from runner.api.retention import delete_older, require_series

        require_series(run_dir)
    async with opened(run_dir, options.if_locked, observe) as store:
        origin = origin_of(store, str(manifest), simulate=options.simulate)
        if not options.simulate:
            _require_same_gateway(store, effective)
        taken = _take_in(store, loaded, options, note, problems)
        origin = replace(origin, sharded=origin.sharded or taken.jobs > MAX_FILES_FLAT)
        remember(store, settings, origin)
        if options.retry_failed:
            retry_failed(store, options.job)
        options = with_time_left(options, began)
        scope = query.Scope(glob=options.job)
        todo = assignment(settings, effective.base_url, keys, origin, scope, options, environ)
        outcome = await work(store, todo, observe, started)
    if is_series and outcome.exit_code not in _CUT_SHORT:
        tidied = delete_older(run_dir, keep_runs=options.keep_runs, keep_days=options.keep_days, today=today)
        outcome = replace(outcome, tidied=tidied)
    return await told(outcome, settings)


async def resume(
    run_dir: Path,
    *,
    options: RunOptions = RunOptions(),
    observe: Observer = ignore_event,
    started: Started = ignore_engine,
) -> Outcome:
    """
    Go on with a run without its manifest.

    Raises:
        StoreMissing: The directory is no run directory.
        CredentialsMissing, RunDirError: As for `run`.
    """
    began = time.monotonic()
    require_run(run_dir)
    async with opened(run_dir, options.if_locked, observe) as store:
        if options.retry_failed:
            retry_failed(store, options.job)
        todo = remembered(store, with_time_left(options, began), query.Scope(glob=options.job))
        outcome = await work(store, todo, observe, started)
    return await told(outcome, todo.settings)


def _in_force(settings: Settings, options: RunOptions, environ: Mapping[str, str]) -> Effective:
    effective = settle(settings, options.overrides, environ)
    if not options.simulate:
        return effective
    return replace(effective, settings=hurried(effective.settings, options.overrides))


_WITH_A_TASK = (State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED)


def _require_same_gateway(store: Store, effective: Effective) -> None:
    """Refuse to ask one gateway for the tasks of another: they would look lost, and they were paid for."""
    text = store.meta(run_facts.SETTINGS)
    before = None if text is None else run_facts.read_settings(text).base_url
    if before is None or effective.sources["gateway.base_url"] == "flag":
        return
    if gateway_root(before) == gateway_root(effective.base_url):
        return
    counts = query.counts(store.reader)
    if tasks := sum(counts[state] for state in _WITH_A_TASK):
        raise UsageError(
            f"{store.run_dir} has {tasks} tasks at {gateway_root(before)}, and would ask for them at "
            f"{gateway_root(effective.base_url)}",
            hint=f"go on there with --base-url {gateway_root(before)}, or say --base-url if it is the same gateway",
        )


def _take_in(
    store: Store,
    manifest: Manifest,
    options: RunOptions,
    report: Callable[[Problem], None],
    problems: Problems,
) -> SyncReport:
    """Check every job and take it into the store: all of them, or none."""
    at = time.time()
    refused: list[JobRecord] = []

    def refuse(spec: JobSpec, why: str) -> None:
        refused.append(_refused(spec, why, at))

    with store.transaction() as connection:
        jobs = manifest.jobs(report, refuse if options.skip_invalid else None)
        taken = sync(connection, jobs, on_changed=options.on_changed, at=at)
        counts = manifest.counts
        has_twins = counts is not None and counts.duplicates > 0
        if problems.errors and (not options.skip_invalid or has_twins or not counts):
            raise refusal(manifest, problems)
        import_records(connection, refused, at=at)
    return taken


def _refused(spec: JobSpec, why: str, at: float) -> JobRecord:
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
        finished_at=at,
        error=Failure(FailureClass.INVALID_REQUEST, why[:500]),
        source=spec.source,
    )
