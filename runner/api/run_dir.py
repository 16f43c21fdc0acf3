"""Opening a run directory for work: its lock, what a dead process left, and what it remembers of its manifest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from runner.api import run_facts
from runner.api.execute import RunRequest
from runner.api.options import IfLocked, RunOptions, apply_overrides, credentials, read_environment
from runner.api.simulate import simulated_keys
from runner.core.settings import Settings
from runner.engine.events import Notice, Observer
from runner.errors import RunLocked, StoreMissing, UsageError
from runner.gateway.credentials import KeySet
from runner.store.query import JobFilter
from runner.store.store import Store
from runner.store.transitions import recover

LOOK_FOR_LOCK_S = 1.0


def require_run(run_dir: Path) -> None:
    """
    Make sure that a directory is one that a run wrote.

    Raises:
        StoreMissing: It is not.
    """
    hint = "name a directory that a run wrote, such as output/kittens"
    if not run_dir.is_dir():
        raise StoreMissing(f"there is no run directory {run_dir}", hint=hint)
    if not (run_dir / "run.db").exists() and not (run_dir / "results.jsonl").exists():
        raise StoreMissing(f"{run_dir} is no run directory: it has no run.db", hint=hint)


@asynccontextmanager
async def open_run(run_dir: Path, if_locked: IfLocked, observe: Observer) -> AsyncIterator[Store]:
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
            jobs = "1 job" if lost == 1 else f"{lost} jobs"
            observe(Notice("recovered", f"the last process ended while it submitted {jobs}: in doubt now"))
        yield store


def read_origin(store: Store, manifest: str | None, *, simulate: bool) -> run_facts.RunOrigin:
    """
    Read where a run comes from, or say it for a new one.

    Raises:
        UsageError: It is a simulated run and this would be a real one, or the other way round.
    """
    text = store.meta(run_facts.ORIGIN)
    if text is None:
        return run_facts.RunOrigin(manifest, simulate, sharded=False)
    origin = run_facts.RunOrigin.read(text)
    run_facts.require_same_kind(origin, store.run_dir, simulate=simulate)
    return origin


def save_settings(store: Store, settings: Settings, origin: run_facts.RunOrigin) -> None:
    """Keep what a later process needs to go on without the manifest."""
    facts = {run_facts.SETTINGS: run_facts.settings_text(settings), run_facts.ORIGIN: origin.text()}
    with store.transaction() as connection:
        for key, text in facts.items():
            if store.meta(key) != text:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))


def load_request(store: Store, options: RunOptions, scope: JobFilter) -> RunRequest:
    """
    Read back what the run needs, with the command line over it.

    The gateway is the one that its tasks were submitted to; only ``--base-url`` says otherwise, not the
    environment, since a task that is asked for elsewhere looks lost.

    Raises:
        StoreMissing: No manifest was ever taken in here.
        CredentialsMissing: No key is set.
        UsageError: A scenario was named for a real run.
    """
    settings_text, origin_text = store.meta(run_facts.SETTINGS), store.meta(run_facts.ORIGIN)
    if settings_text is None or origin_text is None:
        raise StoreMissing(
            f"{store.run_dir} holds no run yet: its manifest was never taken in",
            hint="start it with: runner run MANIFEST",
        )
    origin = run_facts.RunOrigin.read(origin_text)
    if options.simulate:
        run_facts.require_same_kind(origin, store.run_dir, simulate=True)
    if options.scenario is not None and not origin.is_simulated:
        raise UsageError(
            f"{store.run_dir} holds a real run, which no scenario is for", hint="leave --scenario out"
        )
    beside = None if origin.manifest is None else Path(origin.manifest).parent
    environ = read_environment(options.overrides, beside)
    effective = apply_overrides(run_facts.read_settings(settings_text), options.overrides, {})
    keys = simulated_keys() if origin.is_simulated else credentials(effective.settings, environ)
    return run_request(effective.settings, effective.base_url, keys, origin, scope, options, environ)


def run_request(
    settings: Settings,
    base_url: str,
    keys: KeySet,
    origin: run_facts.RunOrigin,
    scope: JobFilter,
    options: RunOptions,
    environ: Mapping[str, str],
) -> RunRequest:
    """Put together what is to be done of a run, and with what."""
    return RunRequest(
        settings=settings,
        base_url=base_url,
        keys=keys,
        origin=origin,
        scope=scope,
        limit=options.limit,
        max_failures=options.max_failures,
        run_s=options.run_s,
        drain_s=options.drain_s,
        scenario=options.scenario,
        environ=environ,
    )


def with_time_left(options: RunOptions, began: float) -> RunOptions:
    """Take from the time for submitting what has passed since a reading of the monotonic clock."""
    if options.run_s is None:
        return options
    return replace(options, run_s=max(0.0, options.run_s - (time.monotonic() - began)))
