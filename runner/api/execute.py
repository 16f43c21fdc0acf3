"""One process's work on an open run directory: wire the rooms together, run the engine, write the files."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from runner import jsontext
from runner.api import run_facts
from runner.api.outputs import Outputs
from runner.api.simulate import SIMULATED, simulated_gateway
from runner.assets.fetch import Fetcher
from runner.assets.publish import Publisher
from runner.core.key_pool import KeyPool
from runner.core.lifecycle import State, next_step
from runner.core.model import JobRecord, Json
from runner.core.settings import Settings
from runner.core.stop import Stop, StopReason, exit_code
from runner.core.summary import Summary, summarize
from runner.engine.context import EngineOptions, Services, stop_for_store_error
from runner.engine.engine import Engine, SystemClock
from runner.engine.events import Event, Notice, Observer
from runner.engine.results_appender import ResultsAppender
from runner.errors import RunnerError
from runner.gateway.client import GatewayClient, user_agent
from runner.gateway.credentials import KeySet
from runner.gateway.urls import content_url, gateway_root, proxy_for
from runner.results.formats import summary_json
from runner.store import query
from runner.store.database import connect_reader
from runner.store.query import JobFilter
from runner.store.store import Store
from runner.worker.deliver import Delivery

if TYPE_CHECKING:
    from runner.api.retention import RetentionResult

log = logging.getLogger(__name__)

MOST_UNCERTAIN_SHOWN = 1000


class RunRequest(Struct, frozen=True, kw_only=True):
    """
    What to do of a run, and with what.

    Attributes:
        scenario: The simulator's scenario, a shipped name or a path; None for its default.
        max_failures: Of `--max-failures`: a number of jobs, or a share such as 0.1.
        environ: For proxies.
    """

    settings: Settings
    base_url: str
    keys: KeySet
    origin: run_facts.RunOrigin
    scope: JobFilter = JobFilter()
    limit: int | None = None
    max_failures: int | float | None = None
    run_s: float | None = None
    drain_s: float = 600.0
    scenario: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


class RunResult(Struct, frozen=True):
    """
    How a process's work on a run ended.

    Attributes:
        gateway: As the results name it.
        did_nothing: There was nothing to do, and nothing was touched.
        is_simulated: Nothing was sent anywhere.
        uncertain: Jobs in doubt, the first thousand of them.
        by_class: Jobs that rest without success, by failure class.
        examples: Of each class of failure one job that rests without success.
        summary: What the run came to; None where nothing was done, see `summary_of`.
        worked_s: How long this process took over it.
        unsaved: Tasks that were paid for and could not be written down: job id and task id.
        troubles: What went wrong when somebody was to be told of the end, a sentence each.
        retention: What became of older runs of the series, where they were to be deleted.
    """

    run_dir: Path
    name: str
    gateway: str
    exit_code: int
    counts: Mapping[State, int]
    stops: tuple[Stop, ...] = ()
    is_simulated: bool = False
    did_nothing: bool = False
    uncertain: tuple[JobRecord, ...] = ()
    by_class: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[JobRecord, ...] = ()
    summary: Summary | None = None
    worked_s: float = 0.0
    unsaved: tuple[tuple[str, str], ...] = ()
    troubles: tuple[str, ...] = ()
    retention: RetentionResult | None = None


OnStarted = Callable[[Engine], None]
"""Gets the engine once it exists, to stop it or to look at it."""


def ignore_event(event: object) -> None:
    """Watch nothing."""


def ignore_engine(engine: object) -> None:
    """Let the engine run undisturbed."""


async def execute(store: Store, assignment: RunRequest, observe: Observer, started: OnStarted) -> RunResult:
    """
    Do what is to be done of a run, and leave its files as they should be.

    Raises:
        RunnerError: It could not begin.
    """
    began = time.monotonic()
    observe = _guarded(observe)
    idle = _is_idle(store, assignment.scope)
    simulated = assignment.origin.is_simulated
    outputs = Outputs(store, assignment.settings, SIMULATED if simulated else assignment.base_url)
    try:
        engine: Engine | None = None
        if not idle:
            async with _engine(store, assignment, outputs, observe) as engine:
                started(engine)
                await engine.run()
            observe(Notice("writing", "writing the results and the report"))
        outcome = _outcome(store, assignment, outputs, engine, observe)
        return replace(outcome, worked_s=time.monotonic() - began)
    finally:
        outputs.close()


def _guarded(observe: Observer) -> Observer:
    """Keep the trouble of whoever watches, such as a closed terminal, from the run."""

    def tell(event: Event) -> None:
        try:
            observe(event)
        except Exception:
            log.debug("the observer failed", exc_info=True)

    return tell


def _is_idle(store: Store, scope: JobFilter) -> bool:
    if query.pending_by_model(store.reader, scope):
        return False
    states = [state for state in State if next_step(state) is not None and state is not State.PENDING]
    return next(query.jobs_in_states(store.reader, states, waiting_since=0.0, scope=scope), None) is None


def _outcome(
    store: Store, assignment: RunRequest, outputs: Outputs, engine: Engine | None, observe: Observer
) -> RunResult:
    stops = () if engine is None else tuple(engine.stops)
    counts = query.counts(store.reader, with_gone=False)
    summary = None
    if not store.is_finished:
        summary, stop = _finish(store, outputs)
        if stop is not None:
            observe(Notice("stopping", stop.message, stop.hint))
            stops = (*stops, stop)
    by_class = query.class_counts(store.reader)
    return RunResult(
        store.run_dir,
        assignment.settings.name,
        outputs.gateway,
        exit_code(stops, counts),
        counts,
        stops,
        assignment.origin.is_simulated,
        did_nothing=summary is None and not stops,
        uncertain=tuple(islice(query.records_in(store.reader, {State.UNCERTAIN}), MOST_UNCERTAIN_SHOWN)),
        by_class=by_class,
        examples=tuple(query.first_of_each_class(store.reader, by_class)),
        unsaved=() if engine is None else tuple(engine.unsaved),
        summary=summary,
    )


def summary_of(run_dir: Path) -> Summary:
    """
    Fold a run into its summary, from its ``run.db``.

    Raises:
        RunDirError: There is none, or it can't be read.
    """
    with contextlib.closing(connect_reader(run_dir)) as reader:
        return summarize(query.records(reader))


def outcome_json(outcome: RunResult) -> dict[str, Json]:
    """
    Say how a run ended in the shape of `summary.json`, with the exit code and the run directory.

    Raises:
        RunDirError: Nothing was done, and ``run.db`` can't be read for the summary.
    """
    summary = outcome.summary or summary_of(outcome.run_dir)
    value = summary_json(summary, run=outcome.name, gateway=outcome.gateway)
    return {**value, "exit_code": outcome.exit_code, "run_dir": str(outcome.run_dir)}


def _finish(store: Store, outputs: Outputs) -> tuple[Summary | None, Stop | None]:
    """Make the derived files anew; what goes wrong must not hide how the run itself ended, so it is returned."""
    try:
        summary = outputs.finish(now_at=time.time())
        store.mark_finished()
    except RunnerError as error:
        return None, stop_for_store_error(error)
    except OSError as error:
        return None, Stop(StopReason.STORE, f"the results in {store.run_dir} can't be written: {error}")
    return summary, None


@asynccontextmanager
async def _engine(
    store: Store, assignment: RunRequest, outputs: Outputs, observe: Observer
) -> AsyncIterator[Engine]:
    """Open everything that a run needs, in the order in which it is closed again."""
    async with AsyncExitStack() as stack:
        base_url = assignment.base_url
        if assignment.origin.is_simulated:
            base_url = await stack.enter_async_context(simulated_gateway(store.run_dir, assignment.scenario))
        rooms = await _services(stack, store, assignment, base_url, outputs, observe)
        if store.journal_mode != "wal":
            what = "this file system can't keep SQLite's write-ahead log"
            observe(Notice("journal", f"{what}; {store.run_dir} is written more slowly"))
        learned = json.loads(store.meta(run_facts.LEARNED) or "{}")
        engine = Engine(rooms, assignment.settings, _options(assignment, store), learned=learned)
        try:
            yield engine
        finally:
            with contextlib.suppress(RunnerError):
                store.set_meta(run_facts.LEARNED, json.dumps(engine.admission.learned()))


async def _services(
    stack: AsyncExitStack,
    store: Store,
    assignment: RunRequest,
    base_url: str,
    outputs: Outputs,
    observe: Observer,
) -> Services:
    settings, root = assignment.settings, gateway_root(base_url)
    api = await stack.enter_async_context(
        GatewayClient(base_url, settings.timeouts, proxy=proxy_for(root, assignment.environ))
    )
    fetcher = await stack.enter_async_context(
        Fetcher(
            base_url,
            rules=settings.assets,
            retry=settings.retry,
            timeouts=settings.timeouts,
            user_agent=user_agent(),
        )
    )
    publisher = await stack.enter_async_context(Publisher())
    await stack.enter_async_context(store)
    keys, clock = PooledKeys(assignment.keys), SystemClock()
    delivery = Delivery(
        api=api,
        keys=keys,
        store=store,
        clock=clock,
        fetcher=fetcher,
        publisher=publisher,
        run_dir=store.run_dir,
        retry=settings.retry,
        draw=random.random,
        content_url=partial(content_url, root),
        sharded=assignment.origin.sharded,
    )
    return Services(
        store=store,
        api=api,
        keys=keys,
        key_pool=keys.ring,
        delivery=delivery,
        clock=clock,
        render=_render,
        probe=lambda: _probe(api, keys),
        draw=random.random,
        results=ResultsAppender(store, outputs.append, observe),
        observe=observe,
    )


def _options(assignment: RunRequest, store: Store) -> EngineOptions:
    return EngineOptions(
        scope=assignment.scope,
        limit=assignment.limit,
        max_failures=_most(assignment.max_failures, store),
        run_s=assignment.run_s,
        drain_s=assignment.drain_s,
    )


class PooledKeys:
    """The keys by their fingerprints, and their health."""

    def __init__(self, keys: KeySet) -> None:
        self._secrets = {key.fingerprint: key.secret for key in keys.keys}
        self.ring = KeyPool(self._secrets)

    def secret(self, fingerprint: str) -> str:
        """Look a key up."""
        return self._secrets[fingerprint]

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """Name the keys to ask for a task with, its own first."""
        return self.ring.for_task(fingerprint)


async def _probe(api: GatewayClient, keys: PooledKeys) -> bool:
    probed = await api.probe(keys.secret(keys.for_task(None)[0]))
    return probed.is_reachable


def _render(text: str) -> bytes:
    # Called for requests that name local files, which most runs have none of.
    from runner.manifest.local_files import render_request

    return jsontext.dumps(render_request(jsontext.loads(text)))


def _most(wish: int | float | None, store: Store) -> int | None:
    if isinstance(wish, float):
        return int(wish * sum(query.counts(store.reader).values()))
    return wish
