"""
Run again what did not succeed, from a results file alone: on another machine, or without ``run.db``.

The file becomes a run directory of its own that knows the tasks and the history of its
jobs, and that directory is rerun. What is not in the file is not known: if the first run
continues elsewhere, both may submit the same job.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from runner.api.config import BASE_URL_NAME, FLAG, gateway_source, read_environment, refused_gateway
from runner.api.options import DEFAULT_OPTIONS, IfLocked, RunOptions
from runner.api.rerun import plan_rerun, rerun
from runner.api.run_dir import as_left_by_a_process, open_run
from runner.api.run_facts import (
    RunFacts,
    RunOrigin,
    default_run_dir,
    read_facts,
    require_same_kind,
    save_facts,
)
from runner.api.run_result import Callbacks, RunResult
from runner.api.simulate import check_simulation
from runner.core.filenames import DB_NAME, MAX_FILES_FLAT, RESULTS_NAME, SIMULATOR_LEDGER_NAME
from runner.core.lifecycle import State
from runner.core.model import MAY_HAVE_PAID_TASK, Failure, FailureClass, JobRecord, Json, has_files
from runner.core.problem import format_path
from runner.core.settings import DEFAULT_BASE_URL, SIMULATED, Settings
from runner.core.summary import summarize
from runner.core.units import format_count
from runner.engine.events import Notice, Observer, guarded, ignore
from runner.errors import ResultsError, UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.file_references import only_uploaded
from runner.manifest.unchecked_job import request_digest
from runner.results.failed_manifest import rerun_name
from runner.results.inline_media import restore_inline_media
from runner.results.reader import ResultsFile, open_results
from runner.schema.catalog import Catalog, load_catalog
from runner.schema.request_schema import RequestSchema
from runner.store.store import Store
from runner.store.transitions import RerunPlan, Selection, import_records

MAX_NAMED = 5
_TO_SUBMIT = (State.PENDING, State.FAILED)


class RerunSource(Struct, frozen=True):
    """
    A results file to rerun, and the run directory that is made from it.

    Attributes:
        run_dir: It need not exist yet.
        gateway_source: What names the gateway; None if only the file does.
        is_finished: Whether every job of the file has succeeded, so that there is nothing to rerun.
    """

    results: ResultsFile
    run_dir: Path
    settings: Settings
    simulate: bool
    gateway_source: str | None
    is_finished: bool

    @property
    def gateway(self) -> str:
        """The gateway of the rerun, as its results name it."""
        return SIMULATED if self.simulate else self.settings.base_url or DEFAULT_BASE_URL

    @property
    def is_nothing_to_do(self) -> bool:
        """Whether every job has succeeded, and no earlier call has left a run directory with others."""
        return self.is_finished and not (self.run_dir / DB_NAME).exists()


def run_dir_of(path: Path) -> Path | None:
    """Return the run directory of a path: itself, or the one whose results file it is; None for a file without one."""
    if not path.is_file():
        return path
    return path.parent if path.name == RESULTS_NAME and (path.parent / DB_NAME).exists() else None


def open_source(path: Path, run_dir: Path | None, options: RunOptions) -> RerunSource:
    """
    Read a results file, and determine the gateway and the directory of a rerun from it.

    Raises:
        ResultsError: It can't be read, or has different jobs with one id.
        UsageError: Its gateway is not clear, or a simulated run would become a real one.
    """
    results = open_results(path)
    gateways, is_finished = _collect_gateways(results)
    if SIMULATED in gateways and (len(gateways) > 1 or options.base_url):
        raise UsageError(
            f"{path} holds results of a simulated run, which no real gateway knows",
            hint="leave --base-url out, and rerun the results of each run separately",
        )
    simulate = options.simulate or SIMULATED in gateways
    name = rerun_name(next(iter(results.runs)))
    settings = Settings(name=name)
    source: str | None = "--simulate"
    check_simulation(options, simulate=simulate)
    if not simulate:
        base_url, source = _gateway(path, gateways, options, is_finished=is_finished)
        settings = replace(settings, base_url=base_url)
    run_dir = run_dir or default_run_dir(path, name, simulate=simulate)
    return RerunSource(results, run_dir, settings, simulate, source, is_finished)


async def rerun_results(
    source: RerunSource,
    selection: Selection = Selection(),
    *,
    options: RunOptions = DEFAULT_OPTIONS,
    confirm: Callable[[RerunPlan], None] = ignore,
    callbacks: Callbacks = Callbacks(),
) -> RunResult:
    """
    Make the run directory, or add to the one that an earlier call made, and rerun it.

    Jobs that are already in the directory stay as they are there.

    Raises:
        UsageError: The directory holds a run of a manifest, or only the file names the gateway.
    """
    _show_warnings(source, callbacks.observe)
    if source.is_nothing_to_do:
        return _nothing_to_do(source)
    if source.gateway_source is None:
        raise refused_gateway(source.gateway, str(source.results.path))
    started_at = time.monotonic()
    await _import_jobs(source, options.if_locked, callbacks.observe)
    return await rerun(
        source.run_dir,
        selection,
        options=options.after(time.monotonic() - started_at),
        confirm=confirm,
        callbacks=callbacks,
    )


async def plan_results(
    source: RerunSource, selection: Selection, observe: Observer, options: RunOptions = DEFAULT_OPTIONS
) -> RerunPlan:
    """Return what `rerun_results` would do, and leave nothing behind."""
    _show_warnings(source, observe)
    if source.is_nothing_to_do:
        return RerunPlan()
    if (source.run_dir / DB_NAME).exists():
        return plan_rerun(source.run_dir, selection, options)
    with TemporaryDirectory(prefix="runner-") as folder:
        temporary = replace(source, run_dir=Path(folder))
        await _import_jobs(temporary, IfLocked.FAIL, observe)
        return plan_rerun(temporary.run_dir, selection, options)


def _show_warnings(source: RerunSource, observe: Observer) -> None:
    observe = guarded(observe)
    for warning in source.results.warnings:
        observe(Notice("warning", f"{source.results.path} {warning}"))


def _nothing_to_do(source: RerunSource) -> RunResult:
    """Return the result of a rerun of a file in which every job has succeeded: nothing is written."""
    summary = summarize(result.record for result in source.results)
    return RunResult(
        source.run_dir,
        source.settings.name,
        source.gateway,
        exit_code=0,
        counts=summary.by_state,
        is_simulated=source.simulate,
        did_nothing=True,
        summary=summary,
    )


async def _import_jobs(source: RerunSource, if_locked: IfLocked, observe: Observer) -> None:
    observe = guarded(observe)
    async with open_run(source.run_dir, RunOptions(if_locked=if_locked), observe) as store:
        saved = read_facts(store.reader)
        if saved is not None:
            _require_rerun(store, saved, source)
        _copy_ledger(source)
        now_at = time.time()
        missing = _MissingFiles(observe)
        with store.transaction() as connection:
            count = import_records(connection, _unfinished(source.results, missing, now_at), at=now_at)
            if saved is None:
                origin = RunOrigin(None, source.simulate, sharded=count > MAX_FILES_FLAT)
                save_facts(connection, RunFacts(source.settings, origin))
        missing.report_rest()


def _require_rerun(store: Store, saved: RunFacts, source: RerunSource) -> None:
    """Refuse a directory that holds another run than one that an earlier call made."""
    require_same_kind(saved.origin, store.run_dir, simulate=source.simulate)
    if saved.origin.manifest is not None:
        raise UsageError(
            f"{store.run_dir} holds the run of {saved.origin.manifest}; a rerun from results needs its own",
            hint="choose another directory with -o",
        )


def _unfinished(results: ResultsFile, missing: _MissingFiles, now_at: float) -> Iterator[JobRecord]:
    """Yield the jobs that did not succeed, in the states in which this run knows them."""
    catalog = load_catalog()
    for result in results:
        record = result.record
        if record.state is State.SUCCEEDED:
            continue
        restored = restore_inline_media(record.request)
        missing_files = (*restored.missing, *_without_target(restored.request, catalog))
        record = replace(record, request=restored.request, digest=request_digest(restored.request), assets=())
        record = as_left_by_a_process(record, now_at)
        if record.state in _TO_SUBMIT and missing_files and not _may_have_a_task(record):
            record = _as_failed(record, missing_files, now_at)
            missing.report(record)
        yield record


def _without_target(request: Mapping[str, Json], catalog: Catalog) -> Iterator[str]:
    """Yield why files that must be uploaded can't be sent: the target is in the manifest."""
    schema = catalog.select(request) if has_files(request) else None
    for path in only_uploaded(request, schema) if isinstance(schema, RequestSchema) else ():
        yield (
            f"request.{format_path(path)}: its file must be uploaded, and results do not say where; "
            "failed.yaml of its run directory does"
        )


def _may_have_a_task(record: JobRecord) -> bool:
    return record.error is not None and record.error.cls in MAY_HAVE_PAID_TASK


def _as_failed(record: JobRecord, missing: Iterable[str], now_at: float) -> JobRecord:
    failure = Failure(FailureClass.INVALID_REQUEST, "; ".join(missing)[:500])
    return replace(record, state=State.FAILED, error=failure, finished_at=now_at)


class _MissingFiles:
    """Reports jobs that can't be submitted here: the first few by name, the rest as a number."""

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._count = 0

    def report(self, record: JobRecord) -> None:
        """Count a job, and report it if it is one of the first."""
        self._count += 1
        if self._count <= MAX_NAMED and record.error is not None:
            self._observe(
                Notice("refused", f"{record.job_id} can't be submitted here: {record.error.message}")
            )

    def report_rest(self) -> None:
        """Report how many there are, if not all were reported by name."""
        if self._count > MAX_NAMED:
            jobs = format_count(self._count, "job")
            self._observe(Notice("refused", f"{jobs} can't be submitted here, since files are missing"))


def _collect_gateways(results: ResultsFile) -> tuple[set[str | None], bool]:
    """
    Collect the gateways that the lines name, and check that job ids are unique.

    Returns:
        The gateways of the jobs that have not succeeded, or of all if all have; and whether all have.
    """
    gateways: set[str | None] = set()
    of_successes: set[str | None] = set()
    seen: set[int] = set()
    for result in results:
        if result.record.state is State.SUCCEEDED:
            of_successes.add(result.gateway)
            continue
        gateways.add(result.gateway)
        key = hash(result.record.job_id)
        if key in seen and len(results.runs) > 1:
            raise ResultsError(
                f"{results.path} has different jobs with the id {result.record.job_id!r}, from different runs",
                hint="rerun the results of each run separately",
            )
        seen.add(key)
    return gateways or of_successes, not gateways


def _gateway(
    path: Path, gateways: set[str | None], options: RunOptions, *, is_finished: bool
) -> tuple[str, str | None]:
    """Return the gateway, and what names it. A ``.env`` beside the file does not count: it may come with it."""
    environ = read_environment(options, None)
    chosen = options.base_url or environ.get(BASE_URL_NAME)
    if chosen:
        return chosen, FLAG if options.base_url else BASE_URL_NAME
    roots = {None if gateway is None else gateway_root(gateway) for gateway in gateways}
    if len(roots) == 1 and (only := next(iter(roots))) is not None:
        if is_finished:
            return only, "the results file"
        return only, gateway_source(only, options, environ, lambda: None)
    if is_finished:
        return DEFAULT_BASE_URL, "the default"
    names = ", ".join(sorted(root for root in roots if root)) or "none"
    raise UsageError(
        f"the lines of {path} do not name one gateway ({names})", hint="name the one to use with --base-url"
    )


def _copy_ledger(source: RerunSource) -> None:
    """Copy the simulator's ledger if it is beside the results, so that it knows their tasks."""
    ledger, own = (folder / SIMULATOR_LEDGER_NAME for folder in (source.results.path.parent, source.run_dir))
    if source.simulate and ledger.is_file() and not os.path.lexists(own):
        shutil.copyfile(ledger, own)
