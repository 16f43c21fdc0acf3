"""The checks during a run: which of them can run, and what is reported about them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from runner.api.asset_store import LocalFiles
from runner.api.config import RunConfig
from runner.checks.judge import NEEDS_DECODER
from runner.checks.pool import MeasuringPool, require_decoder
from runner.checks.video_checker import AssetHook, RunningChecks, VideoChecker
from runner.core.settings import DEFAULT_KEY_NAME, Check
from runner.core.stop import Drain
from runner.core.units import format_count
from runner.engine.engine import Engine
from runner.engine.events import Notice, Observer
from runner.errors import UsageError
from runner.gateway.credentials import POOL_NAME
from runner.store import rows, takes
from runner.store.job_filter import JobFilter
from runner.store.store import Store


@asynccontextmanager
async def running_checks(
    store: Store, config: RunConfig, job_filter: JobFilter, observe: Observer
) -> AsyncIterator[RunningChecks]:
    """Make the checks of a run, beginning with what an earlier process left unchecked; they end with the context."""
    settings = config.settings
    hook = config.hook
    if not settings.checks and hook is None:
        yield RunningChecks(store, None)
        return
    key_names = (*settings.key_names, DEFAULT_KEY_NAME, POOL_NAME)
    async with AsyncExitStack() as stack:
        pool = None
        if _can_decode(settings.checks, observe):
            pool = await stack.enter_async_context(MeasuringPool(key_names))
        checker = VideoChecker(
            str(store.run_dir),
            settings.checks,
            settings.reject,
            pool=pool,
            hook=None if hook is None else AssetHook(hook, key_names, str(store.run_dir.absolute())),
            job_id_of=partial(takes.job_id, store.reader),
        )
        if Check.NEAR_DUPLICATE in settings.checks:
            for seq, _, text in takes.findings(store.reader, containing=Check.NEAR_DUPLICATE):
                checker.remember(seq, rows.parse(text))
        local = LocalFiles(store.run_dir, config.origin, config.environ)
        checks = await stack.enter_async_context(RunningChecks(store, checker, local.of))
        checks.add_earlier(takes.unchecked(store.reader, job_filter))
        yield checks


def are_checks_left(store: Store, config: RunConfig, job_filter: JobFilter) -> bool:
    """Return whether an earlier process left videos unchecked."""
    is_checked = bool(config.settings.checks) or config.hook is not None
    return is_checked and next(takes.unchecked(store.reader, job_filter), None) is not None


def _can_decode(checks: tuple[Check, ...], observe: Observer) -> bool:
    """Return whether pictures can be looked at, if they are to be; what is missing is reported once."""
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


async def finish_checks(checks: RunningChecks, engine: Engine, observe: Observer) -> None:
    """Wait for the checks that are left when a run has ended, unless a signal ends it."""
    if checks.left:
        observe(Notice("checks", f"checking {format_count(checks.left, 'video')}"))
    left = await checks.finish(lambda: any(stop.drain is Drain.IN_PROGRESS for stop in engine.stops))
    if left:
        message = f"{format_count(left, 'video')} not checked, because the run was ended"
        observe(Notice("warning", message, "the next run or resume checks them"))
