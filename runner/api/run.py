"""Run a manifest, go on with a run, and run again what did not succeed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from runner.api import kept
from runner.api.check import refusal
from runner.api.environment import Overrides, credentials, read_environment, settle
from runner.api.rehearsal import hurried, simulated_keys
from runner.api.work import Assignment, Outcome, Started, work
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord, JobSpec, Json
from runner.core.naming import MAX_FILES_FLAT
from runner.core.problem import Problem
from runner.core.settings import Settings
from runner.engine.events import Notice, Observer
from runner.errors import RunLocked, StoreMissing
from runner.gateway.keys import KeySet
from runner.manifest.check import Manifest, load
from runner.manifest.problems import Problems
from runner.store import Store, query
from runner.store.settle import RerunPlan, Selection, choose, import_records, recover, rerun_chosen
from runner.store.sync import OnChanged, SyncReport, sync

LOOK_FOR_LOCK_S = 1.0


class IfLocked(StrEnum):
    """What to do where another process works in the run directory."""

    FAIL = "fail"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """
    How to run. Every field has the meaning of the command line's option of its name.

    Attributes:
        variables: Of `--var`.
        job: Only jobs whose id matches, as the shell matches file names.
        max_failures: A number of jobs, or a share of all such as 0.1.
        run_s: How long jobs are submitted; None for as long as there are any.
        scenario: The simulator's, by name or path; only with ``simulate``.
    """

    simulate: bool = False
    scenario: str | None = None
    limit: int | None = None
    job: str | None = None
    retry_failed: bool = False
    skip_invalid: bool = False
    strict: bool = False
    on_changed: OnChanged = OnChanged.ERROR
    max_failures: int | float | None = None
    run_s: float | None = None
    drain_s: float = 600.0
    if_locked: IfLocked = IfLocked.FAIL
    variables: Mapping[str, Json] = field(default_factory=dict)
    overrides: Overrides = Overrides()


def _ignore_event(event: object) -> None:
    """Watch nothing."""


def _ignore_engine(engine: object) -> None:
    """Let the engine run undisturbed."""


async def run(
    manifest: Path,
    *,
    output: Path | None = None,
    options: RunOptions = RunOptions(),
    observe: Observer = _ignore_event,
    report: Callable[[Problem], None] = _ignore_event,
    started: Started = _ignore_engine,
) -> Outcome:
    """
    Run a manifest: submit what is new, poll and fetch what was submitted, and write the results.

    The same call again goes on where the first one stopped, and does nothing when all is done.

    Args:
        output: The run directory; by default ``output/`` and the manifest's name.
        observe: Gets events as they happen.
        report: Gets the manifest's problems, warnings included, as they are found.
        started: Gets the engine, to stop it.

    Raises:
        ManifestError: The manifest has errors; nothing was sent.
        CredentialsMissing: No key is set; nothing was sent.
        RunDirError: The run directory can't be used.
    """
    environ = read_environment(options.overrides, manifest.parent)
    problems = Problems()

    def note(problem: Problem) -> None:
        problems(problem)
        report(problem)

    loaded = load(
        manifest, note, variables=options.variables, today=datetime.now(UTC).date(), is_strict=options.strict
    )
    settings, base_url = _in_force(loaded.settings, options, environ)
    keys = simulated_keys() if options.simulate else credentials(settings, environ)
    run_dir = output or kept.default_run_dir(loaded.name, simulate=options.simulate)
    async with _opened(run_dir, options.if_locked, observe) as store:
        origin = _origin(store, str(manifest), simulate=options.simulate)
        taken = _take_in(store, loaded, options, note, problems)
        origin = replace(origin, sharded=origin.sharded or taken.jobs > MAX_FILES_FLAT)
        _remember(store, settings, origin)
        scope = query.Scope(glob=options.job)
        if options.retry_failed:
            _retry_failed(store, options)
        assignment = _assignment(settings, base_url, keys, origin, scope, options, environ)
        return await work(store, assignment, observe, started)


async def resume(
    run_dir: Path,
    *,
    options: RunOptions = RunOptions(),
    observe: Observer = _ignore_event,
    started: Started = _ignore_engine,
) -> Outcome:
    """
    Go on with a run without its manifest.

    Raises:
        StoreMissing: The directory is no run directory.
        CredentialsMissing, RunDirError: As for `run`.
    """
    _require_run(run_dir)
    async with _opened(run_dir, options.if_locked, observe) as store:
        assignment = _remembered(store, options, query.Scope(glob=options.job))
        return await work(store, assignment, observe, started)


async def rerun(
    run_dir: Path,
    selection: Selection = Selection(),
    *,
    options: RunOptions = RunOptions(),
    confirm: Callable[[RerunPlan], None] = _ignore_event,
    observe: Observer = _ignore_event,
    started: Started = _ignore_engine,
) -> Outcome:
    """
    Run again what did not succeed: download what is undelivered, poll what timed out, submit what failed.

    Left alone unless their class is named: jobs in doubt, lost ones, and those that moderation or the API's
    own checks refused.

    Args:
        confirm: Gets the plan before anything is done; an exception from it stops everything.
    """
    _require_run(run_dir)
    async with _opened(run_dir, options.if_locked, observe) as store:
        plan = _choose(store, selection)
        confirm(plan)
        with store.transaction() as connection:
            choose(connection, selection)
            rerun_chosen(connection, at=time.time())
        # The engine's own connection sees what was committed, and keeps the choice while it works.
        assignment = _remembered(store, options, query.Scope(chosen=True))
        return await work(store, assignment, observe, started)


def plan_rerun(run_dir: Path, selection: Selection = Selection()) -> RerunPlan:
    """Say what `rerun` would do, and change nothing."""
    _require_run(run_dir)
    with Store(run_dir) as store:
        return _choose(store, selection)


async def begin_from_results(
    records: Iterator[JobRecord], run_dir: Path, settings: Settings, *, simulate: bool
) -> int:
    """
    Make a run of what another run's results know and did not bring to success; return how many jobs it has.

    Their task ids and history come along, so that nothing that was paid for is paid for again. Jobs that
    the directory has already stay as they are.
    """
    with Store(run_dir) as store:
        origin = _origin(store, None, simulate=simulate)
        with store.transaction() as connection:
            count = import_records(connection, records, at=time.time())
        if store.meta(kept.SETTINGS) is None:
            _remember(store, settings, replace(origin, sharded=count > MAX_FILES_FLAT))
        return count


# What they share.


def _require_run(run_dir: Path) -> None:
    if not run_dir.is_dir():
        raise StoreMissing(f"there is no run directory {run_dir}", hint="name a directory that a run wrote")
    if not (run_dir / "run.db").exists() and not (run_dir / "results.jsonl").exists():
        raise StoreMissing(
            f"{run_dir} is no run directory: it has no run.db", hint="name a directory that a run wrote"
        )


@asynccontextmanager
async def _opened(run_dir: Path, if_locked: IfLocked, observe: Observer) -> AsyncIterator[Store]:
    """Open a run directory, waiting for another process where that is asked for; put lost jobs in doubt."""
    with ExitStack() as stack:
        told = False
        while True:
            try:
                store = stack.enter_context(Store(run_dir))
                break
            except RunLocked as error:
                if if_locked is IfLocked.FAIL:
                    raise
                if not told:
                    observe(Notice("waiting", f"{error.message}; waiting for it"))
                    told = True
                await asyncio.sleep(LOOK_FOR_LOCK_S)
        with store.transaction() as connection:
            lost = recover(connection, at=time.time())
        if lost:
            observe(
                Notice("recovered", f"the last process ended while it submitted {lost} of the jobs: in doubt")
            )
        yield store


def _in_force(settings: Settings, options: RunOptions, environ: Mapping[str, str]) -> tuple[Settings, str]:
    effective = settle(settings, options.overrides, environ)
    if not options.simulate:
        return effective.settings, effective.base_url
    return hurried(effective.settings, options.overrides), effective.base_url


def _origin(store: Store, manifest: str | None, *, simulate: bool) -> kept.Origin:
    text = store.meta(kept.ORIGIN)
    if text is None:
        return kept.Origin(manifest, simulate, sharded=False)
    origin = kept.Origin.read(text)
    kept.require_kind(origin, store.run_dir, simulate=simulate)
    return origin


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


def _remember(store: Store, settings: Settings, origin: kept.Origin) -> None:
    facts = {kept.SETTINGS: kept.settings_text(settings), kept.ORIGIN: origin.text()}
    with store.transaction() as connection:
        for key, text in facts.items():
            if store.meta(key) != text:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))


def _remembered(store: Store, options: RunOptions, scope: query.Scope) -> Assignment:
    """Read back what the run needs, with the command line and the environment over it."""
    settings_text, origin_text = store.meta(kept.SETTINGS), store.meta(kept.ORIGIN)
    if settings_text is None or origin_text is None:
        raise StoreMissing(
            f"{store.run_dir} holds no run yet: its manifest was never taken in",
            hint="start it with: runner run MANIFEST",
        )
    origin = kept.Origin.read(origin_text)
    beside = None if origin.manifest is None else Path(origin.manifest).parent
    environ = read_environment(options.overrides, beside)
    remembered = kept.read_settings(settings_text)
    effective = settle(remembered, options.overrides, environ)
    keys = simulated_keys() if origin.is_simulated else credentials(effective.settings, environ)
    return _assignment(effective.settings, effective.base_url, keys, origin, scope, options, environ)


def _assignment(
    settings: Settings,
    base_url: str,
    keys: KeySet,
    origin: kept.Origin,
    scope: query.Scope,
    options: RunOptions,
    environ: Mapping[str, str],
) -> Assignment:
    return Assignment(
        settings=settings,
        base_url=base_url,
        keys=keys,
        origin=origin,
        scope=scope,
        limit=options.limit,
        most_failures=options.max_failures,
        run_s=options.run_s,
        drain_s=options.drain_s,
        scenario=options.scenario,
        environ=environ,
    )


def _choose(store: Store, selection: Selection) -> RerunPlan:
    return choose(store.reader, selection)


def _retry_failed(store: Store, options: RunOptions) -> None:
    """Make failed jobs pending again, by the same choice as a rerun."""
    selection = Selection(states=frozenset({State.FAILED}), glob=options.job)
    with store.transaction() as connection:
        choose(connection, selection)
        rerun_chosen(connection, at=time.time())
