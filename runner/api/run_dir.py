"""Open a run directory for work: its lock, its crash recovery, and its saved configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from runner.api.config import RunConfig, apply_options, find_keys, read_environment
from runner.api.options import IfLocked, RunOptions
from runner.api.run_facts import read_facts, require_same_kind
from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.errors import RunLocked, StoreMissing, UsageError
from runner.store.store import Store
from runner.store.transitions import recover

RETRY_LOCK_S = 1.0


def require_run(run_dir: Path) -> None:
    """
    Check that a directory is a run directory.

    Raises:
        StoreMissing: It is not.
    """
    hint = "name a run directory, such as output/kittens"
    if not run_dir.is_dir():
        raise StoreMissing(f"the run directory {run_dir} does not exist", hint=hint)
    if not (run_dir / DB_NAME).exists() and not (run_dir / RESULTS_NAME).exists():
        raise StoreMissing(f"{run_dir} is not a run directory: it has no {DB_NAME}", hint=hint)


@asynccontextmanager
async def open_run(run_dir: Path, if_locked: IfLocked, observe: Observer) -> AsyncIterator[Store]:
    """
    Open a run directory, after waiting for another process if that is wanted.

    Jobs that a dead process left between intent and answer become uncertain.
    """
    with ExitStack() as stack:
        store = await _lock(stack, run_dir, if_locked, observe)
        with store.transaction() as connection:
            lost = recover(connection, at=time.time())
        if lost:
            jobs = f"{format_count(lost, 'job')} {'is' if lost == 1 else 'are'} uncertain"
            observe(Notice("recovered", f"the last process ended while it submitted: {jobs}"))
        yield store


async def _lock(stack: ExitStack, run_dir: Path, if_locked: IfLocked, observe: Observer) -> Store:
    is_waiting = False
    while True:
        try:
            return stack.enter_context(Store(run_dir))
        except RunLocked as error:
            if if_locked is not IfLocked.WAIT:
                raise
            if not is_waiting:
                observe(Notice("waiting", f"{error.message}; waiting for it"))
                is_waiting = True
            await asyncio.sleep(RETRY_LOCK_S)


def load_config(store: Store, options: RunOptions) -> RunConfig:
    """
    Read back what the run needs, and apply the options to it.

    The gateway is the one that its tasks were submitted to; only ``--base-url`` changes that, not the
    environment, since a task that is polled elsewhere looks lost.

    Raises:
        StoreMissing: No manifest was ever loaded into this directory.
        CredentialsMissing: No key is set.
        UsageError: The options do not fit the run.
    """
    saved = read_facts(store.reader)
    if saved is None:
        raise StoreMissing(
            f"{store.run_dir} holds no run yet: no manifest was loaded into it",
            hint="start it with: runner run MANIFEST",
        )
    simulate = saved.origin.is_simulated
    if options.simulate:
        require_same_kind(saved.origin, store.run_dir, simulate=True)
    if options.scenario is not None and not simulate:
        raise UsageError(
            f"{store.run_dir} holds a real run, which takes no scenario", hint="leave --scenario out"
        )
    manifest = saved.origin.manifest
    environ = read_environment(options, None if manifest is None else Path(manifest).parent)
    settings, _ = apply_options(saved.settings, options, {}, simulate=simulate)
    return RunConfig(settings, saved.origin, find_keys(settings, environ, simulate=simulate), environ)
