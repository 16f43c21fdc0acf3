"""One process's work on an open run directory: build the parts, run the engine, write the files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from shutil import disk_usage

from msgspec import Struct, field
from msgspec.structs import replace

from runner.api.asset_store import keeps_local, open_uploader, remove_uploaded
from runner.api.budget import Repeat, check_cost, open_budget, repeats
from runner.api.config import RunConfig
from runner.api.inputs import open_inputs
from runner.api.learned_rates import read_learned, save_learned
from runner.api.options import RunOptions
from runner.api.outputs import Outputs
from runner.api.pooled_keys import PooledKeys
from runner.api.prices import pricer_for
from runner.api.retention import RetentionResult
from runner.api.run_checks import are_checks_left, finish_checks, running_checks
from runner.api.run_facts import LEARNED
from runner.api.run_ledger import settle_ledger
from runner.api.shards import divided
from runner.api.simulate import simulated_gateway, speed_line, with_simulator_speed
from runner.assets.fetch import Fetcher
from runner.assets.publish import Publisher
from runner.checks.duplicates import save_duplicates
from runner.core.lifecycle import State, next_step
from runner.core.model import JobRecord
from runner.core.settings import Settings
from runner.core.stop import Stop, StopReason, exit_code
from runner.core.summary import Summary
from runner.core.units import format_size
from runner.disk import FREE_SPACE_HINT, reserve_bytes
from runner.engine.clock import SystemClock
from runner.engine.context import EngineContext, stop_for_store_error
from runner.engine.engine import Engine
from runner.engine.events import Notice, Observer, guarded
from runner.engine.leased_governor import LeasedGovernor
from runner.engine.lost_tasks import poll_lost_tasks
from runner.engine.results_appender import ResultsAppender
from runner.errors import RunnerError
from runner.gateway.client import GatewayClient, user_agent
from runner.gateway.urls import content_url, gateway_root
from runner.proxies import Proxies
from runner.store import query
from runner.store.job_filter import JobFilter
from runner.store.store import Store
from runner.worker.deliver import Deliverer
from runner.worker.job_log import with_job_log
from runner.worker.pauses import RetryPauses
from runner.worker.poll import Poller
from runner.worker.prompt_api import PromptApi
from runner.worker.submit import Submitter

log = logging.getLogger(__name__)

MAX_UNCERTAIN_SHOWN = 1000


class RunResult(Struct, frozen=True):
    """
    How a process's work on a run ended.

    Attributes:
        gateway: As the results name it.
        matches: Jobs that the run was restricted to, and others; None if it was not.
        did_nothing: There was nothing to do, and nothing was written.
        is_simulated: Nothing was sent anywhere.
        needs_base_url: Whether only an option names the gateway, so that the next command needs it too.
        asset_store: The URL of the object store that the videos are in; None if they are in the directory.
        uncertain: Uncertain jobs, the first thousand of them.
        by_class: Jobs that ended without success, by failure class.
        examples: One job of each of these classes.
        summary: Of the whole run; None if nothing was done, see `summary_of`.
        worked_s: How long this process took.
        unsaved: Tasks that were paid for and could not be saved, as pairs of job id and task id.
        troubles: What went wrong with notifications of the end, one sentence each.
        retention: Which older runs of the series were deleted; None if none were to be.
        resume: What resuming the run would submit.
        rerun: What rerunning it would submit.
    """

    run_dir: Path
    name: str
    gateway: str
    exit_code: int
    counts: Mapping[State, int]
    stops: tuple[Stop, ...] = ()
    is_simulated: bool = False
    matches: query.Matches | None = None
    did_nothing: bool = False
    needs_base_url: bool = False
    asset_store: str | None = None
    uncertain: tuple[JobRecord, ...] = ()
    by_class: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[JobRecord, ...] = ()
    summary: Summary | None = None
    worked_s: float = 0.0
    unsaved: tuple[tuple[str, str], ...] = ()
    troubles: tuple[str, ...] = ()
    retention: RetentionResult | None = None
    resume: Repeat = Repeat(0, None)
    rerun: Repeat = Repeat(0, None)


OnStarted = Callable[[Engine], None]
"""Gets the engine once it exists, to stop it or to look at it."""


def ignore(_event: object) -> None:
    """Do nothing."""


async def execute(
    store: Store,
    config: RunConfig,
    options: RunOptions,
    job_filter: JobFilter,
    *,
    observe: Observer,
    on_started: OnStarted,
    resubmit_lost: bool = False,
    confirm_cost: Callable[[str], bool] | None = None,
    governor: LeasedGovernor | None = None,
) -> RunResult:
    """
    Do what is to be done of a run, and bring its files up to date.

    Args:
        resubmit_lost: Whether to submit lost jobs again if the API still does not know their tasks.
        confirm_cost: Asks whether to submit, and pay; None if there is nobody to ask.
        governor: Has the limits of a run of which this process works on one shard; None if there is no other process.

    Raises:
        RunnerError: It could not begin.
    """
    started_at = time.monotonic()
    observe = guarded(observe)
    remove_uploaded(store, config)
    outputs = Outputs(store, config)
    try:
        engine: Engine | None = None
        if _is_idle(store, job_filter) and not are_checks_left(store, config, job_filter):
            await asyncio.to_thread(settle_ledger, store, config.settings, governor)
        else:
            check_cost(
                store.reader,
                config.settings,
                options,
                job_filter,
                confirm_cost,
                is_simulated=config.origin.is_simulated,
            )
            if store.journal_mode != "wal":
                message = f"no write-ahead log on this file system: {store.run_dir} is slower"
                observe(Notice("journal", message))
            async with _engine(
                store, config, options, job_filter, outputs, observe, governor, resubmit_lost=resubmit_lost
            ) as engine:
                on_started(engine)
                if (stop := _lack_of_space(store, job_filter)) is not None:
                    engine.stop(stop)
                await engine.run()
            observe(Notice("writing", "writing the results and the report"))
        # Before what could be rerun is selected.
        matches = query.matches(store.reader, job_filter) if job_filter.is_restricted else None
        result = _result(store, config, outputs, engine, observe)
        resume, rerun = repeats(store, config.settings, job_filter)
        result = replace(result, matches=matches, resume=resume, rerun=rerun)
        return replace(result, worked_s=time.monotonic() - started_at)
    finally:
        outputs.close()


def _lack_of_space(store: Store, job_filter: JobFilter) -> Stop | None:
    """Return why nothing should be submitted: the disk has no space for a video, which would be paid for."""
    if not query.pending_by_model(store.reader, job_filter):
        return None
    free, reserve = disk_usage(store.run_dir).free, reserve_bytes(store.run_dir)
    if free >= reserve:
        return None
    message = f"{store.run_dir} has {format_size(free)} free, less than the reserve of {format_size(reserve)}"
    return Stop(StopReason.DISK, f"{message}; nothing was submitted", FREE_SPACE_HINT)


def _is_idle(store: Store, job_filter: JobFilter) -> bool:
    if query.pending_by_model(store.reader, job_filter):
        return False
    states = [state for state in State if next_step(state) is not None and state is not State.PENDING]
    jobs = query.jobs_in_states(store.reader, states, waiting_since=0.0, scope=job_filter)
    lost = query.lost_jobs(store.reader, waiting_since=0.0, scope=job_filter)
    return next(chain(jobs, lost), None) is None


@asynccontextmanager
async def _engine(
    store: Store,
    config: RunConfig,
    options: RunOptions,
    job_filter: JobFilter,
    outputs: Outputs,
    observe: Observer,
    governor: LeasedGovernor | None,
    *,
    resubmit_lost: bool,
) -> AsyncIterator[Engine]:
    """Open everything that a run needs, in the order in which it is closed again."""
    at_once, base_url = None if governor is None else governor.at_once, config.gateway
    settings = own_settings = divided(config.settings, config.origin.shard, at_once=at_once)
    async with AsyncExitStack() as stack:
        if config.origin.is_simulated:
            if not (options.real_time or config.origin.is_real_time):
                settings = with_simulator_speed(settings, options)
                observe(Notice("simulated", speed_line(settings)))
            base_url = await stack.enter_async_context(
                simulated_gateway(store.run_dir, options.scenario, pricer_for(settings))
            )
        root = gateway_root(base_url)
        proxies = Proxies.from_environ(config.environ)
        client = await stack.enter_async_context(
            GatewayClient(base_url, settings.timeouts, proxy=proxies.for_url(root))
        )
        budget, allowance = await stack.enter_async_context(
            open_budget(store, own_settings, options, job_filter, governor)
        )
        pauses = RetryPauses()
        uploader = await open_uploader(config, settings, pauses)
        fetcher = await stack.enter_async_context(_fetcher(base_url, settings, proxies, pauses))
        publisher = await stack.enter_async_context(Publisher())
        await stack.enter_async_context(store)
        keys, clock = PooledKeys(config.keys), SystemClock()
        poller = Poller(client, keys, store, clock)
        await poll_lost_tasks(
            store,
            poller,
            clock,
            observe,
            job_filter=job_filter,
            poll_per_s=settings.limits.poll_per_s,
            resubmit=resubmit_lost,
        )
        learned: Mapping[str, float] = {}
        if not config.origin.is_simulated:
            text, asked_per_s = store.meta(LEARNED), options.submit_rate
            learned = read_learned(
                text,
                config.gateway,
                keys.fingerprints,
                submit_per_s=asked_per_s,
                is_shard=config.origin.shard is not None,
            )
        deliverer = Deliverer(
            client,
            keys,
            store,
            clock,
            downloader=fetcher,
            publisher=publisher,
            run_dir=store.run_dir,
            retry=settings.retry,
            draw=random.random,
            content_url=partial(content_url, root),
            sharded=config.origin.sharded,
            max_download_s=settings.timeouts.download_s,
            pauses=pauses,
            uploader=uploader,
            keeps_local=keeps_local(config),
        )
        api = client if store.journal is None else PromptApi(client)
        submitter, poller, deliverer = with_job_log(Submitter(api, keys, store, clock), poller, deliverer)
        checks = await stack.enter_async_context(running_checks(store, config, job_filter, observe))
        inputs = await open_inputs(
            stack,
            store,
            settings,
            job_filter,
            root=root,
            key=keys.secret(keys.for_task(None)[0]),
            environ=config.environ,
            clock=clock,
            observe=observe,
            is_simulated=config.origin.is_simulated,
            limit=options.limit,
        )
        engine = Engine(
            EngineContext(
                settings=settings,
                learned=learned,
                job_filter=job_filter,
                limit=options.limit,
                max_failures=options.max_failures,
                run_s=options.max_runtime,
                stop_at=options.stop_at,
                drain_s=options.drain_time,
                store=store,
                key_pool=keys.pool,
                submitter=submitter,
                poller=poller,
                deliverer=deliverer,
                clock=clock,
                inputs=inputs,
                probe=lambda: _probe(client, keys),
                draw=random.random,
                results=ResultsAppender(store, outputs.append, observe),
                budget=budget,
                observe=observe,
                governor=governor,
                on_success=checks.add,
            )
        )
        if governor is not None:
            governor.attach(engine, learned)
        if allowance is not None:
            allowance.on_change, allowance.on_stop = engine.reschedule, engine.stop
        try:
            yield engine
            await finish_checks(checks, engine, observe)
        finally:
            if governor is not None:
                await governor.close()
            if allowance is not None:
                await allowance.close()
            with contextlib.suppress(RunnerError):
                if not config.origin.is_simulated:
                    rates = engine.governor.learned()
                    save_learned(
                        store,
                        rates,
                        config.gateway,
                        keys.fingerprints,
                        is_shard=config.origin.shard is not None,
                    )


def _fetcher(base_url: str, settings: Settings, proxies: Proxies, pauses: RetryPauses) -> Fetcher:
    return Fetcher(
        base_url,
        rules=settings.assets,
        retry=settings.retry,
        timeouts=settings.timeouts,
        user_agent=user_agent(),
        sleep=pauses.sleep,
        proxies=proxies,
    )


async def _probe(client: GatewayClient, keys: PooledKeys) -> bool:
    probed = await client.probe(keys.secret(keys.for_task(None)[0]))
    return probed.is_reachable


def _result(
    store: Store, config: RunConfig, outputs: Outputs, engine: Engine | None, observe: Observer
) -> RunResult:
    """Bring the derived files up to date, and say how the work ended."""
    stops = () if engine is None else engine.stops
    counts = query.counts(store.reader, with_gone=False)
    summary, was_finished = None, store.meta("finished") is not None
    if not store.is_finished:
        summary, stop = _finish(store, outputs, config.settings)
        # A disk that failed while the run worked fails here again, and was reported.
        if stop is not None and not any(
            known.reason in (StopReason.DISK, StopReason.STORE) for known in stops
        ):
            observe(Notice("stopping", stop.message, stop.hint))
            stops = (*stops, stop)
    by_class = query.class_counts(store.reader)
    return RunResult(
        store.run_dir,
        config.settings.name,
        config.gateway,
        exit_code(stops, counts),
        counts,
        stops,
        config.origin.is_simulated,
        did_nothing=(summary is None or was_finished) and not stops,
        needs_base_url=config.needs_base_url,
        asset_store=config.asset_url,
        uncertain=tuple(islice(query.records_in(store.reader, {State.UNCERTAIN}), MAX_UNCERTAIN_SHOWN)),
        by_class=by_class,
        examples=tuple(query.first_of_each_class(store.reader, by_class)),
        unsaved=() if engine is None else tuple(engine.unsaved),
        summary=summary,
    )


def _finish(store: Store, outputs: Outputs, settings: Settings) -> tuple[Summary | None, Stop | None]:
    """Rewrite the derived files. Errors are returned, since they must not hide how the run itself ended."""
    try:
        save_duplicates(store, settings.reject)
        summary = outputs.finish(now_at=time.time())
    except RunnerError as error:
        return None, stop_for_store_error(error)
    except OSError as error:
        return None, Stop(StopReason.STORE, f"the results in {store.run_dir} can't be written: {error}")
    return summary, None
