"""
Run again what did not succeed, from a results file alone: on another machine, or where ``run.db`` is gone.

The file becomes a run directory of its own that remembers the tasks and the history
of its jobs, and that directory is rerun. What is not in the file is not known: where
the first run goes on elsewhere, both may submit the same job.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from runner.api import run_facts
from runner.api.execute import OnStarted, RunResult, ignore_engine, ignore_event
from runner.api.options import BASE_URL_NAME, IfLocked, RunOptions, read_environment
from runner.api.rerun import plan_rerun, rerun
from runner.api.run_dir import open_run, read_origin, save_settings, with_time_left
from runner.api.simulate import LEDGER_NAME, SIMULATED, with_simulator_speed
from runner.core.filenames import MAX_FILES_FLAT
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.settings import Settings
from runner.engine.events import Notice, Observer
from runner.errors import ResultsError, UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.job_digest import request_digest
from runner.results.failed_manifest import rerun_name
from runner.results.inline_media import restore_inline_media
from runner.results.reader import ResultsFile, open_results
from runner.store.database import DB_NAME, RESULTS_NAME
from runner.store.transitions import RerunPlan, Selection, import_records

MOST_NAMED = 5
_TO_SUBMIT = (State.PENDING, State.FAILED)
_WITH_A_TASK = (State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED)
_NEVER_SENT_AGAIN = (FailureClass.LOST, FailureClass.UNCERTAIN_SUBMIT)


class RerunSource(Struct, frozen=True):
    """
    A run that begins from a results file.

    Attributes:
        run_dir: Where it is to live.
    """

    results: ResultsFile
    run_dir: Path
    settings: Settings
    simulate: bool


def run_dir_of(path: Path) -> Path | None:
    """Name the run directory that a path stands for: itself, or the one whose results it is; None for a lone file."""
    if not path.is_file():
        return path
    return path.parent if path.name == RESULTS_NAME and (path.parent / DB_NAME).exists() else None


def open_source(path: Path, run_dir: Path | None, options: RunOptions) -> RerunSource:
    """
    Read a results file, and settle which gateway and which directory a rerun from it uses.

    Raises:
        ResultsError: It can't be read, or has different jobs of one id.
        UsageError: Its gateway is not clear, or a simulated run would become a real one.
    """
    results = open_results(path)
    gateways = _look_through(results)
    if SIMULATED in gateways and (len(gateways) > 1 or options.overrides.base_url):
        raise UsageError(
            f"{path} holds results of a simulated run, which no real gateway knows of",
            hint="leave --base-url out, and rerun the results of each run on their own",
        )
    simulate = options.simulate or SIMULATED in gateways
    name = rerun_name(next(iter(results.runs)))
    settings = Settings(name=name)
    if simulate:
        settings = with_simulator_speed(settings, options.overrides)
    else:
        settings = replace(settings, base_url=_gateway(path, gateways, options))
    return RerunSource(
        results, run_dir or run_facts.default_run_dir(name, simulate=simulate), settings, simulate
    )


async def rerun_results(
    beginning: RerunSource,
    selection: Selection = Selection(),
    *,
    options: RunOptions = RunOptions(),
    confirm: Callable[[RerunPlan], None] = ignore_event,
    observe: Observer = ignore_event,
    started: OnStarted = ignore_engine,
) -> RunResult:
    """
    Make the run directory, or add to the one that an earlier call made, and rerun it.

    Jobs that the directory has already stay as they are there.

    Raises:
        UsageError: The directory holds a run of a manifest.
    """
    began = time.monotonic()
    await _take_in(beginning, options.if_locked, observe)
    return await rerun(
        beginning.run_dir,
        selection,
        options=with_time_left(options, began),
        confirm=confirm,
        observe=observe,
        started=started,
    )


async def plan_results(beginning: RerunSource, selection: Selection, observe: Observer) -> RerunPlan:
    """Say what `rerun_results` would do, and leave nothing behind."""
    if (beginning.run_dir / DB_NAME).exists():
        return plan_rerun(beginning.run_dir, selection)
    with TemporaryDirectory(prefix="runner-") as folder:
        imagined = replace(beginning, run_dir=Path(folder))
        await _take_in(imagined, IfLocked.FAIL, observe)
        return plan_rerun(imagined.run_dir, selection)


async def _take_in(beginning: RerunSource, if_locked: IfLocked, observe: Observer) -> None:
    for warning in beginning.results.warnings:
        observe(Notice("warning", f"{beginning.results.path} {warning}"))
    async with open_run(beginning.run_dir, if_locked, observe) as store:
        origin = read_origin(store, None, simulate=beginning.simulate)
        if origin.manifest is not None:
            raise UsageError(
                f"{beginning.run_dir} holds the run of {origin.manifest}; a rerun from results needs its own",
                hint="choose another directory with -o",
            )
        _bring_ledger(beginning)
        at = time.time()
        missing = _MissingFiles(observe)
        with store.transaction() as connection:
            count = import_records(connection, _to_do(beginning.results, missing, at), at=at)
        missing.tell_rest()
        if store.meta(run_facts.SETTINGS) is None:
            save_settings(store, beginning.settings, replace(origin, sharded=count > MAX_FILES_FLAT))


def _to_do(results: ResultsFile, missing: _MissingFiles, at: float) -> Iterator[JobRecord]:
    for result in results:
        record = result.record
        if record.state is State.SUCCEEDED:
            continue
        recovered = restore_inline_media(record.request)
        record = replace(
            record, request=recovered.request, digest=request_digest(recovered.request), assets=()
        )
        if record.state is State.SUBMITTING:
            record = _in_doubt(
                record, "the results were written while the answer to its POST was awaited", at
            )
        elif record.state in _WITH_A_TASK and not record.task_id:
            record = _in_doubt(record, f"the results call it {record.state} and do not name its task", at)
        elif record.state in _TO_SUBMIT and recovered.missing and not _is_lost(record):
            record = _refused(record, recovered.missing, at)
            missing.note(record)
        yield record


def _is_lost(record: JobRecord) -> bool:
    return record.error is not None and record.error.cls in _NEVER_SENT_AGAIN


def _in_doubt(record: JobRecord, why: str, at: float) -> JobRecord:
    failure = Failure(FailureClass.UNCERTAIN_SUBMIT, why)
    return replace(record, state=State.UNCERTAIN, error=failure, finished_at=at)


def _refused(record: JobRecord, missing: Iterable[str], at: float) -> JobRecord:
    failure = Failure(FailureClass.INVALID_REQUEST, "; ".join(missing)[:500])
    return replace(record, state=State.FAILED, error=failure, finished_at=at)


class _MissingFiles:
    """Tells of jobs that can't be submitted here: the first few by name, the rest as a number."""

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._count = 0

    def note(self, record: JobRecord) -> None:
        """Count a job, and tell of it while it is one of the first."""
        self._count += 1
        if self._count <= MOST_NAMED and record.error is not None:
            self._observe(
                Notice("refused", f"{record.job_id} can't be submitted here: {record.error.message}")
            )

    def tell_rest(self) -> None:
        """Tell how many they were, where not all were told of by name."""
        if self._count > MOST_NAMED:
            self._observe(
                Notice("refused", f"{self._count} jobs can't be submitted here, since files are absent")
            )


def _look_through(results: ResultsFile) -> set[str | None]:
    """Collect the gateways that the lines name, and make sure that a job's id names one job."""
    gateways: set[str | None] = set()
    seen: set[int] = set()
    for result in results:
        if result.record.state is State.SUCCEEDED:
            continue
        gateways.add(result.gateway)
        key = hash(result.record.job_id)
        if key in seen and len(results.runs) > 1:
            raise ResultsError(
                f"{results.path} has different jobs of the id {result.record.job_id!r}, from different runs",
                hint="rerun the results of each run on their own",
            )
        seen.add(key)
    return gateways


def _gateway(path: Path, gateways: set[str | None], options: RunOptions) -> str:
    environ = read_environment(options.overrides, path.parent)
    chosen = options.overrides.base_url or environ.get(BASE_URL_NAME)
    if chosen:
        return chosen
    roots = {None if gateway is None else gateway_root(gateway) for gateway in gateways}
    if len(roots) == 1 and (only := next(iter(roots))) is not None:
        return only
    named = ", ".join(sorted(root for root in roots if root)) or "none"
    raise UsageError(
        f"the lines of {path} do not name one gateway ({named})", hint="name the one to use with --base-url"
    )


def _bring_ledger(beginning: RerunSource) -> None:
    """Let the simulator know the tasks of the run that the results are from, where it lies beside them."""
    ledger, own = beginning.results.path.with_name(LEDGER_NAME), beginning.run_dir / LEDGER_NAME
    if beginning.simulate and ledger.is_file() and not own.exists():
        shutil.copyfile(ledger, own)
