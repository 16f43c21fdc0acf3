"""One process's work on an open run directory: build the parts, and run the engine."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runner.api.asset_store import remove_uploaded
from runner.api.budget import check_cost, open_budget
from runner.api.config import RunConfig
from runner.api.job_steps import JobSteps, open_steps
from runner.api.options import RunOptions
from runner.api.outputs import Outputs
from runner.api.run_facts import LEARNED
from runner.api.run_ledger import settle_ledger
from runner.api.run_result import Callbacks, RunResult, result_of
from runner.api.shards import divided
from runner.api.simulate import simulated_gateway, speed_line, with_simulator_speed
from runner.api.state_dir import read_learned, save_learned
from runner.core.lifecycle import WITH_A_TASK
from runner.core.model import Job
from runner.core.settings import Settings
from runner.core.stop import Stop, StopReason
from runner.core.units import format_size
from runner.disk import FREE_SPACE_HINT, require_encodable, reserve_bytes
from runner.engine.allowance import Allowance
from runner.engine.budget import RunBudget
from runner.engine.context import EngineContext, InputFiles
from runner.engine.engine import Engine
from runner.engine.events import Delivered, Notice, Observer, ignore
from runner.engine.polls import poll_lost_tasks
from runner.errors import RunnerError
from runner.schema.price_tables import pricer_for
from runner.store import query, work_list
from runner.store.store import Store
from runner.store.takes import unchecked
from runner.store.work_list import JobFilter
from runner.store.writer import RESERVE_BYTES, in_thread, to_the_end

if TYPE_CHECKING:
    from runner.engine.governor_client import GovernorClient


async def execute(
    store: Store,
    config: RunConfig,
    options: RunOptions,
    job_filter: JobFilter,
    callbacks: Callbacks,
    *,
    resubmit_lost: bool = False,
    governor: GovernorClient | None = None,
    on_begin: Callable[[], None] | None = None,
) -> RunResult:
    """
    Do the remaining work of a run, and bring its files up to date.

    Args:
        resubmit_lost: Whether to submit lost jobs again if the API still does not know their tasks.
        governor: Has the limits of a run of which this process works on one shard; None if there is no other process.
        on_begin: Called when nothing refuses the run any more, before anything is submitted.

    Raises:
        RunnerError: It could not begin.
    """
    started_at, observe = time.monotonic(), callbacks.observe
    has_checks = bool(config.settings.checks) or config.hook is not None
    work = Work(store, config, options, job_filter, observe, governor, has_checks)
    if config.origin.asset_store is not None and not config.origin.asset_store.keeps_local:
        remove_uploaded(store, config)
    outputs = Outputs(store, config)
    try:
        engine = None
        has_pending = work_list.has_pending(store.reader, job_filter)
        if (
            has_pending
            or _has_tasks(store, job_filter)
            or (has_checks and next(unchecked(store.reader, job_filter), None) is not None)
        ):
            engine = await _run_engine(
                work, outputs, callbacks, on_begin, has_pending=has_pending, resubmit_lost=resubmit_lost
            )
        else:
            await in_thread(settle_ledger, store, config.settings, governor)
        return replace(result_of(work, outputs, engine), worked_s=time.monotonic() - started_at)
    finally:
        outputs.close()


async def _run_engine(
    work: Work,
    outputs: Outputs,
    callbacks: Callbacks,
    on_begin: Callable[[], None] | None,
    *,
    has_pending: bool,
    resubmit_lost: bool,
) -> Engine:
    """Refuse what can't be run, run the rest to its end, and return the engine."""
    store, observe, is_simulated = work.store, work.observe, work.config.origin.is_simulated
    if has_pending and not is_simulated:
        store.require_only()
    # Before any video is paid for that no file could hold.
    require_encodable(query.job_ids(store.reader))
    settings, confirm = work.config.settings, callbacks.confirm_cost
    check_cost(store.reader, settings, work.options, work.job_filter, confirm, is_simulated=is_simulated)
    if not store.has_log:
        observe(Notice("journal", f"no write-ahead log on this file system: {store.run_dir} is slower"))
    async with _engine(work, outputs, resubmit_lost=resubmit_lost) as engine:
        if on_begin is not None:
            on_begin()
        callbacks.on_started(engine)
        if resubmit_lost:
            # Of lost tasks that are submitted again.
            has_pending = work_list.has_pending(store.reader, work.job_filter)
        if has_pending:
            # If the disk is full, what the store sets aside did not fit.
            reserve = RESERVE_BYTES if store.is_disk_full else reserve_bytes(store.run_dir)
            if (free := disk_usage(store.run_dir).free) < reserve:
                engine.stop(_lack_of_space(store.run_dir, free, reserve))
        await engine.run()
    observe(Notice("writing", "writing the results and the report"))
    return engine


def _lack_of_space(run_dir: Path, free: int, reserve: int) -> Stop:
    """Return why nothing should be submitted: the disk has no space for a video, which would be paid for."""
    message = f"{run_dir} has {format_size(free)} free, less than the reserve of {format_size(reserve)}"
    return Stop(StopReason.DISK, f"{message}; nothing was submitted", FREE_SPACE_HINT)


def _has_tasks(store: Store, job_filter: JobFilter) -> bool:
    """Return whether jobs with a task are to be polled or downloaded."""
    jobs = work_list.jobs_in_states(store.reader, WITH_A_TASK, waiting_since=0.0, scope=job_filter)
    lost = work_list.lost_jobs(store.reader, waiting_since=0.0, scope=job_filter)
    return next(chain(jobs, lost), None) is not None


class Work(Struct, frozen=True):
    """What `execute` was called with, and whether videos are checked, or shown to a command."""

    store: Store
    config: RunConfig
    options: RunOptions
    job_filter: JobFilter
    observe: Observer
    governor: GovernorClient | None
    has_checks: bool


@asynccontextmanager
async def _engine(work: Work, outputs: Outputs, *, resubmit_lost: bool) -> AsyncIterator[Engine]:
    """Open everything that a run needs, in the order in which it is closed again."""
    store, config, observe = work.store, work.config, work.observe
    own = _own_share(work)
    async with AsyncExitStack() as stack:
        settings, base_url = own, config.gateway
        if config.origin.is_simulated:
            settings, base_url = await _simulated(stack, work, own)
        steps = await open_steps(stack, store, config, settings, base_url)
        # The ledger is brought up to date before the store's writer starts.
        budget, allowance = await stack.enter_async_context(
            open_budget(store, own, work.options, work.job_filter, work.governor)
        )
        await stack.enter_async_context(store)
        if store.has_attempts:
            await _poll_lost(work, steps, settings.limits.poll_per_s, resubmit=resubmit_lost)
        on_success: Callable[[Job], None] = ignore
        finish = None
        if work.has_checks:
            from runner.api.video_checks import finish_checks, running_checks

            checks = await stack.enter_async_context(running_checks(store, config, work.job_filter, observe))
            on_success, finish = checks.add, partial(finish_checks, checks)
        inputs = None
        if settings.inputs is not None:
            from runner.api.inputs import open_uploads

            inputs = await open_uploads(stack, work, steps, settings, settings.inputs)
        learned: Mapping[str, float] = {}
        if not config.origin.is_simulated:
            known, is_shard = store.meta.get(LEARNED), config.origin.shard is not None
            learned = read_learned(
                known,
                base_url,
                steps.keys.fingerprints,
                submit_per_s=work.options.submit_rate,
                is_shard=is_shard,
            )
        context = _context(
            work,
            settings,
            steps,
            learned=learned,
            inputs=inputs,
            append=outputs.append,
            budget=budget,
            on_success=on_success,
        )
        engine = Engine(context)
        try:
            async with _connected(engine, work.governor, allowance, learned):
                yield engine
                if finish is not None:
                    await finish(engine, observe)
        finally:
            _save_learned(work, engine, steps)


async def _poll_lost(work: Work, steps: JobSteps, poll_per_s: float, *, resubmit: bool) -> None:
    store, clock = work.store, steps.clock
    lost = list(work_list.lost_jobs(store.reader, waiting_since=clock.now(), scope=work.job_filter))
    if lost:
        await poll_lost_tasks(
            lost, store, steps.poller, clock, work.observe, poll_per_s=poll_per_s, resubmit=resubmit
        )


def _own_share(work: Work) -> Settings:
    """Return the settings of a run, or of its shard, with its part of the limits."""
    settings, shard = work.config.settings, work.config.origin.shard
    if work.governor is not None:
        # It has the limits and the budget of all shards, but for polls.
        poll_per_s = settings.limits.poll_per_s / work.governor.at_once
        return replace(settings, limits=replace(settings.limits, poll_per_s=poll_per_s))
    return settings if shard is None else divided(settings, shard)


async def _simulated(stack: AsyncExitStack, work: Work, settings: Settings) -> tuple[Settings, str]:
    """Start the gateway of a simulated run, and return the settings and the base URL to work with."""
    options = work.options
    if not (options.real_time or work.config.origin.is_real_time):
        settings = with_simulator_speed(settings, options)
        work.observe(Notice("simulated", speed_line(settings)))
    simulated = simulated_gateway(work.store.run_dir, options.scenario, pricer_for(settings))
    return settings, await stack.enter_async_context(simulated)


def _context(
    work: Work,
    settings: Settings,
    steps: JobSteps,
    *,
    learned: Mapping[str, float],
    inputs: InputFiles | None,
    append: Callable[[Mapping[str, int]], Mapping[str, Delivered]],
    budget: RunBudget,
    on_success: Callable[[Job], None],
) -> EngineContext:
    options = work.options
    return EngineContext(
        settings=settings,
        learned=learned,
        job_filter=work.job_filter,
        limit=options.limit,
        max_failures=options.max_failures,
        run_s=options.max_runtime,
        stop_at=options.stop_at,
        drain_s=options.drain_time,
        store=work.store,
        key_pool=steps.keys,
        submitter=steps.submitter,
        poller=steps.poller,
        deliverer=steps.deliverer,
        clock=steps.clock,
        probe=steps.probe,
        draw=random.random,
        observe=work.observe,
        governor=work.governor,
        inputs=inputs,
        append=append,
        budget=budget,
        on_success=on_success,
    )


@asynccontextmanager
async def _connected(
    engine: Engine, governor: GovernorClient | None, allowance: Allowance | None, learned: Mapping[str, float]
) -> AsyncIterator[None]:
    """Connect an engine with what it shares with other processes."""
    if governor is not None:
        governor.attach(engine, learned)
    if allowance is not None:
        allowance.on_change, allowance.on_stop = engine.schedule_soon, engine.stop
    try:
        yield
    finally:
        if governor is not None:
            await governor.close()
        if allowance is not None:
            await to_the_end(allowance.close)


def _save_learned(work: Work, engine: Engine, steps: JobSteps) -> None:
    if work.config.origin.is_simulated:
        return
    with contextlib.suppress(RunnerError):
        rates = engine.governor.learned()
        is_shard = work.config.origin.shard is not None
        save_learned(work.store, rates, steps.base_url, steps.keys.fingerprints, is_shard=is_shard)
