"""Checks of videos: those beside a run, as far as they can run, and those of a whole run afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path

from msgspec import Struct, field

from runner.api.asset_store import LocalFiles
from runner.api.config import RunConfig, run_environment
from runner.api.options import IfLocked, RunOptions
from runner.api.outputs import Outputs
from runner.api.run_dir import open_run, require_facts, require_run
from runner.api.run_facts import command_folder
from runner.checks.duplicate_videos import save_duplicates
from runner.checks.judge import NEEDS_DECODER, Findings, Measures
from runner.checks.pool import MeasuringPool, require_decoder
from runner.checks.video_checker import AssetHook, RunningChecks, VideoChecker
from runner.core.model import JobRecord, Json
from runner.core.settings import DEFAULT_KEY_NAME, Check
from runner.core.stop import Drain
from runner.core.units import format_count
from runner.engine.events import ActiveRun, Notice, Observer, guarded, ignore
from runner.errors import UsageError
from runner.gateway.credentials import POOL_NAME
from runner.store import query, rows, takes
from runner.store.store import Store
from runner.store.work_list import JobFilter

_BATCH = 100
"""Jobs whose findings are written at once."""


class CheckResult(Struct):
    """
    What the checks of a run found.

    Attributes:
        videos: How many were checked.
        failed: By check, how many did not pass it.
        rejected: How many got the verdict ``reject``.
        not_checked: How many could not be checked.
        jobs: The jobs with something to see, each with its warnings; the first thousand.
    """

    videos: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    not_checked: int = 0
    jobs: dict[str, tuple[str, ...]] = field(default_factory=dict)


_MAX_LISTED = 1000


async def check_media(
    run_dir: Path, *, if_locked: IfLocked = IfLocked.FAIL, observe: Observer = ignore
) -> CheckResult:
    """
    Check every video of a run again, by the checks of its manifest, or by all of them if it names none.

    Raises:
        UsageError: The extra ``media`` is not installed.
        RunLocked: Another process uses the run directory.
    """
    require_decoder()
    require_run(run_dir)
    observe = guarded(observe)
    async with open_run(run_dir, RunOptions(if_locked=if_locked), observe) as store:
        facts = require_facts(store.reader, run_dir)
        settings = facts.settings
        jobs = takes.delivered(store.reader)
        observe(Notice("checks", f"checking {format_count(len(jobs), 'video')}"))
        checks = settings.checks or tuple(Check)
        async with MeasuringPool(settings.key_names) as pool:
            checker = VideoChecker(
                str(run_dir),
                checks,
                settings.reject,
                pool=pool,
                hook=None,
                job_id_of=partial(takes.job_id, store.reader),
            )
            local = LocalFiles(run_dir, facts.origin, run_environment(facts))
            await _check_all(store, checker, jobs, local)
        save_duplicates(store, settings.reject)
        with closing(Outputs(store, facts)) as outputs:
            outputs.finish(now_at=time.time())
        return _result(store, jobs)


async def _check_all(
    store: Store, checker: VideoChecker, jobs: Sequence[tuple[int, int]], local: LocalFiles
) -> None:
    """Check all jobs, and save the findings in manifest order, so that the first of two similar videos is the original."""
    batch: list[tuple[int, int, str]] = []
    async for seq, attempt, findings, measures in _examine_in_order(store, checker, jobs, local):
        row = checker.finish(seq, findings, measures)
        batch.append((seq, attempt, rows.canonical(_with_answers(store, seq, attempt, row))))
        if len(batch) == _BATCH:
            _write(store, batch)
            batch = []
    _write(store, batch)


async def _examine_in_order(
    store: Store, checker: VideoChecker, jobs: Sequence[tuple[int, int]], local: LocalFiles
) -> AsyncIterator[tuple[int, int, Findings, Measures | None]]:
    async def examine(record: JobRecord) -> tuple[Findings, Measures | None]:
        async with local.of(record):
            return await checker.examine(record)

    window: deque[tuple[int, int, asyncio.Task[tuple[Findings, Measures | None]]]] = deque()
    try:
        for seq, attempt in jobs:
            record = next(query.records(store.reader, [seq]))
            window.append((seq, attempt, asyncio.create_task(examine(record))))
            if len(window) >= 2 * checker.at_once:
                seq, attempt, task = window.popleft()
                yield seq, attempt, *(await task)
        while window:
            seq, attempt, task = window.popleft()
            yield seq, attempt, *(await task)
    finally:
        for *_, task in window:
            task.cancel()
        await asyncio.gather(*(task for *_, task in window), return_exceptions=True)


def _with_answers(store: Store, seq: int, attempt: int, row: dict[str, Json]) -> dict[str, Json]:
    """Return findings with what `on_asset` answered in the run, which is not asked again."""
    before = takes.findings_of(store.reader, seq, attempt)
    if before is None:
        return row
    old = rows.parse(before)
    answers = {name: value for name, value in old["checks"].items() if name not in (*Check, "duplicate")}
    failed = [text for text in old["warnings"] if text.startswith("on_asset: ")]
    return {**row, "checks": {**row["checks"], **answers}, "warnings": [*row["warnings"], *failed]}


def _write(store: Store, batch: list[tuple[int, int, str]]) -> None:
    if batch:
        with store.transaction() as connection:
            connection.executemany(rows.SAVE_CHECKS, batch)


def _result(store: Store, jobs: Sequence[tuple[int, int]]) -> CheckResult:
    result = CheckResult(len(jobs))
    for seq, _, text in takes.findings(store.reader):
        row = rows.parse(text)
        result.failed.update(
            name
            for name, found in row["checks"].items()
            if isinstance(found, dict) and found.get("ok") is False
        )
        result.rejected += row["verdict"] is not None
        result.not_checked += any(text.startswith("the video was not checked") for text in row["warnings"])
        if row["warnings"] and len(result.jobs) < _MAX_LISTED:
            result.jobs[takes.job_id(store.reader, seq)] = tuple(row["warnings"])
    return result


def check_result_json(result: CheckResult) -> dict[str, Json]:
    """Return what the checks found, as `check-media --json` prints it."""
    return {
        "videos": result.videos,
        "failed": dict(sorted(result.failed.items())),
        "rejected": result.rejected,
        "not_checked": result.not_checked,
        "jobs": {job_id: list(warnings) for job_id, warnings in result.jobs.items()},
    }


@asynccontextmanager
async def running_checks(
    store: Store, config: RunConfig, job_filter: JobFilter, observe: Observer
) -> AsyncIterator[RunningChecks]:
    """Make the checks of a run, beginning with what an earlier process left unchecked; they end with the context."""
    settings, hook = config.settings, config.hook
    key_names = (*settings.key_names, DEFAULT_KEY_NAME, POOL_NAME)
    async with AsyncExitStack() as stack:
        pool = None
        if _can_decode(settings.checks, observe):
            pool = await stack.enter_async_context(MeasuringPool(key_names))
        folder = command_folder(config.origin.manifest)
        checker = VideoChecker(
            str(store.run_dir),
            settings.checks,
            settings.reject,
            pool=pool,
            hook=None if hook is None else AssetHook(hook, key_names, store.run_dir.absolute(), folder),
            job_id_of=partial(takes.job_id, store.reader),
        )
        if Check.NEAR_DUPLICATE in settings.checks:
            for seq, _, text in takes.findings(store.reader, containing=Check.NEAR_DUPLICATE):
                checker.remember(seq, rows.parse(text))
        local = LocalFiles(store.run_dir, config.origin, config.environ)
        checks = await stack.enter_async_context(RunningChecks(store, checker, local.of))
        checks.add_earlier(takes.unchecked(store.reader, job_filter))
        yield checks


def _can_decode(checks: tuple[Check, ...], observe: Observer) -> bool:
    """Return whether pictures can be decoded, if the checks need them; a missing decoder is reported once."""
    needing = [check for check in checks if check in NEEDS_DECODER]
    if not needing and Check.SILENT not in checks:
        return False
    try:
        require_decoder()
    except UsageError as error:
        if needing:
            message = f"videos are not checked for {', '.join(needing)}: {error.message}"
            observe(Notice("warning", message, f"{error.hint}, then: runner check-media RUN_DIR"))
        return False
    return True


async def finish_checks(checks: RunningChecks, engine: ActiveRun, observe: Observer) -> None:
    """Wait for the checks that are left when a run has ended, unless a signal ends it."""
    if checks.left:
        observe(Notice("checks", f"checking {format_count(checks.left, 'video')}"))
    left = await checks.finish(lambda: any(stop.drain is Drain.IN_PROGRESS for stop in engine.stops))
    if left:
        message = f"{format_count(left, 'video')} not checked, because the run was ended"
        observe(Notice("warning", message, "the next run or resume checks them"))
