"""Run a manifest, and go on with a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from runner.api import run_facts
from runner.api.execute import OnStarted, RunResult, execute, ignore_engine, ignore_event
from runner.api.notify import send_notifications
from runner.api.options import (
    EffectiveSettings,
    IfLocked,
    RunOptions,
    apply_overrides,
    credentials,
    read_environment,
)
from runner.api.rerun import retry_failed
from runner.api.run_dir import (
    load_request,
    open_run,
    read_origin,
    require_run,
    run_request,
    save_settings,
    with_time_left,
)
from runner.api.simulate import simulated_keys, with_simulator_speed
from runner.api.validate import manifest_error
from runner.core.filenames import MAX_FILES_FLAT
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord, JobSpec
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.engine.events import Observer
from runner.errors import UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.store import query
from runner.store.store import Store
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
    started: OnStarted = ignore_engine,
) -> RunResult:
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
    problems = ProblemCollector()

    def note(problem: Problem) -> None:
        problems(problem)
        report(problem)

    loaded = load(manifest, note, variables=options.variables, today=today, is_strict=options.strict)
    effective = _in_force(loaded.settings, options, environ)
    settings = effective.settings
    keys = simulated_keys() if options.simulate else credentials(settings, environ)
    run_dir = run_facts.expand_date(
        output or run_facts.default_run_dir(loaded.name, simulate=options.simulate), today
    )
    is_series = options.keep_runs is not None or options.keep_days is not None
    if is_series:
        from runner.api.retention import delete_older, require_series

        require_series(run_dir)
    async with open_run(run_dir, options.if_locked, observe) as store:
        origin = read_origin(store, str(manifest), simulate=options.simulate)
        if not options.simulate:
            _require_same_gateway(store, effective)
        taken = _take_in(store, loaded, options, note, problems)
        origin = replace(origin, sharded=origin.sharded or taken.jobs > MAX_FILES_FLAT)
        save_settings(store, settings, origin)
        if options.retry_failed:
            retry_failed(store, options.job)
        options = with_time_left(options, began)
        scope = query.JobFilter(glob=options.job)
        todo = run_request(settings, effective.base_url, keys, origin, scope, options, environ)
        outcome = await execute(store, todo, observe, started)
    if is_series and outcome.exit_code not in _CUT_SHORT:
        tidied = delete_older(run_dir, keep_runs=options.keep_runs, keep_days=options.keep_days, today=today)
        outcome = replace(outcome, retention=tidied)
    return await send_notifications(outcome, settings)


async def resume(
    run_dir: Path,
    *,
    options: RunOptions = RunOptions(),
    observe: Observer = ignore_event,
    started: OnStarted = ignore_engine,
) -> RunResult:
    """
    Go on with a run without its manifest.

    Raises:
        StoreMissing: The directory is no run directory.
        CredentialsMissing, RunDirError: As for `run`.
    """
    began = time.monotonic()
    require_run(run_dir)
    async with open_run(run_dir, options.if_locked, observe) as store:
        if options.retry_failed:
            retry_failed(store, options.job)
        todo = load_request(store, with_time_left(options, began), query.JobFilter(glob=options.job))
        outcome = await execute(store, todo, observe, started)
    return await send_notifications(outcome, todo.settings)


def _in_force(settings: Settings, options: RunOptions, environ: Mapping[str, str]) -> EffectiveSettings:
    effective = apply_overrides(settings, options.overrides, environ)
    if not options.simulate:
        return effective
    return replace(effective, settings=with_simulator_speed(effective.settings, options.overrides))


_WITH_A_TASK = (State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED)


def _require_same_gateway(store: Store, effective: EffectiveSettings) -> None:
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
    problems: ProblemCollector,
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
            raise manifest_error(manifest, problems)
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
