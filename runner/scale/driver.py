"""Run a manifest on a Ray cluster: prepare its shards, start the governor and the shards, and supervise them until they end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from runner.api.budget import currency_of
from runner.api.config import find_keys, read_environment
from runner.api.journals import JournaledRun, find_run, write_snapshot
from runner.api.manifest_jobs import prepare
from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts, command_folder, default_run_dir, read_facts
from runner.api.run_result import Callbacks, RunResult, send_notifications, summary_of
from runner.core.lifecycle import State
from runner.core.money import to_nanos
from runner.core.settings import DEFAULT_KEY_NAME, Settings
from runner.core.sharding import Shard
from runner.core.stop import exit_code
from runner.engine.events import Notice, Observer
from runner.errors import ClusterError, StoreMissing, UsageError, install_hint
from runner.scale.actors import (
    GOVERNOR_NAME,
    Assignment,
    GovernorActor,
    GovernorPlan,
    ShardActor,
    find_ledger,
    serving_ledger,
)
from runner.scale.fleet import Fleet, merged_result
from runner.store import costs, query
from runner.store.database import reading
from runner.store.local_view import write_view

log = logging.getLogger(__name__)

_CPUS_OF_A_SHARD = 0.5
_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 80 * 2**20
"""Of a local Ray: messages are small, and no other objects are made."""
_PASSED = ("AWS_", "GOOGLE_", "AZURE_")
_REFUSED = ("shard", "per_shard", "job", "where", "sample", "retry_failed", "keep_runs", "keep_days")


class RayPlan(Struct, frozen=True, kw_only=True):
    """
    How to run on Ray.

    Attributes:
        workers: How many shards are at work at once.
        shards: How many shards the run has, which never changes; None for those that it has, or as many as workers.
        address: Of a cluster; None for a Ray of this machine alone.
        folder: Where the directories of shards are made, on the machines where they are worked on.
    """

    workers: int
    shards: int | None = None
    address: str | None = None
    folder: Path | None = None


async def run_on_ray(
    manifest: Path, callbacks: Callbacks = Callbacks(), *, plan: RayPlan, options: RunOptions
) -> RunResult:
    """
    Run a manifest on many machines, or continue that.

    Raises:
        UsageError: Options do not fit together, or Ray is not installed or not found.
        ManifestError: The manifest has errors; nothing was sent.
        RunnerError: The journal can't be used.
    """
    started_at, observe = time.monotonic(), callbacks.observe
    _check_options(options, plan)
    _require_ray(plan)
    environ = read_environment(options, manifest.parent)
    url = options.journal or _local_journal(manifest, options, plan)
    run, has_begun = await asyncio.to_thread(_prepare, manifest, url, plan, options, environ, callbacks)
    states = await asyncio.to_thread(_read_states, run)
    settings = states.facts.settings
    secrets = _secrets(settings, environ, is_simulated=states.facts.origin.is_simulated)
    limits = _governor_plan(run, states, options)
    ledger = find_ledger(states.facts, manifest, plan.address)
    observe(
        Notice("run_dir", f"journal: {run.store.url}, {run.shards} shards, {plan.workers} at work at once")
    )
    if has_begun:
        message = "shards that have begun continue with the jobs in their journals, whatever changed in the manifest"
        observe(Notice("journal", message))
    with _cluster(plan, run):
        own = shard_options(options.after(time.monotonic() - started_at), states.facts, now_at=time.time())
        assignments = _assignments(run, plan, own, states.facts, manifest, has_ledger=ledger is not None)
        fleet = _fleet(run, assignments, states, limits, secrets, observe)
        with serving_ledger(ledger):
            callbacks.on_started(fleet)
            await fleet.run()
    result = await asyncio.to_thread(_result, run, fleet, states.facts)
    result = replace(result, worked_s=time.monotonic() - started_at)
    return await send_notifications(result, settings, environ, folder=command_folder(manifest))


def _check_options(options: RunOptions, plan: RayPlan) -> None:
    for name in _REFUSED:
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} does not go with --engine ray",
                hint="leave it out; runner resume and runner rerun take the URL of the journal",
            )
    if plan.address is not None and options.journal is None:
        raise UsageError(
            "a cluster's machines need a journal that all of them reach",
            hint="add --journal URL, such as s3://BUCKET/PREFIX, or file:///FOLDER on a disk that all have",
        )


def _require_ray(plan: RayPlan) -> None:
    """Import Ray, which reads variables when it is imported."""
    # No usage statistics are sent, unless somebody asked for that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if plan.address is None:
        # Otherwise Ray takes the machine's outer address even if it is told 127.0.0.1, and listens on all.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UsageError(
            "--engine ray needs Ray, which is not installed",
            hint=f"{install_hint('ray')}; or use --shard I/N",
        ) from None


def _local_journal(manifest: Path, options: RunOptions, plan: RayPlan) -> str:
    """Return the folder of a journal beside the shards' directories, which all processes of this machine reach."""
    run_dir = default_run_dir(manifest, manifest.stem, simulate=options.simulate)
    return ((plan.folder or run_dir.parent) / f"{run_dir.name}.journal").absolute().as_uri()


def _prepare(
    manifest: Path,
    url: str,
    plan: RayPlan,
    options: RunOptions,
    environ: Mapping[str, str],
    callbacks: Callbacks,
) -> tuple[JournaledRun, bool]:
    """Put the manifest's jobs into the journals of shards that have not begun; return whether others have."""
    shards = plan.shards
    try:
        held = find_run(url, environ)
        shards = shards or held.shards
    except StoreMissing:
        held, shards = None, shards or plan.workers
    prepared = prepare(
        manifest,
        url,
        shards,
        options=options,
        on_problem=callbacks.on_problem,
        is_governed=True,
        confirm_cost=callbacks.confirm_cost if held is None else None,
    )
    return find_run(url, environ), None in prepared.jobs


class _States(Struct):
    """What the journals of all shards hold."""

    facts: RunFacts
    counts: dict[int, dict[State, int]]
    spent: dict[int, dict[str, int]]


def _read_states(run: JournaledRun) -> _States:
    facts, counts, spent = None, {}, {}
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        for index in range(run.shards):
            journal, database = run.journal(index), Path(folder, "shard.db")
            write_view(database, journal, journal.read())
            with closing(sqlite3.connect(database)) as reader:
                facts = facts or read_facts(reader)
                counts[index] = query.counts(reader)
                spent[index] = {each.currency: each.spent + each.reserved for each in costs.spend(reader)}
            database.unlink()
    assert facts is not None
    return _States(facts, counts, spent)


def shard_options(options: RunOptions, facts: RunFacts, *, now_at: float) -> RunOptions:
    """
    Return the options of each shard: what counts over all shards is the governor's, and a time limit ends all at once.

    Args:
        now_at: The time, in seconds since 1970.
    """
    ends = [] if options.max_runtime is None else [now_at + options.max_runtime]
    ends += [] if options.stop_at is None else [options.stop_at]
    return replace(
        options,
        limit=None,
        max_failures="off",
        max_runtime=None,
        stop_at=min(ends, default=None),
        env_file=None,
        yes=True,
        journal=None,
        base_url=None if facts.origin.is_simulated else facts.gateway,
    )


def _assignments(
    run: JournaledRun,
    plan: RayPlan,
    options: RunOptions,
    facts: RunFacts,
    manifest: Path,
    *,
    has_ledger: bool,
) -> list[Assignment]:
    folder = plan.folder
    if folder is None:
        folder = default_run_dir(manifest, run.name, simulate=facts.origin.is_simulated).parent
    return [
        Assignment(
            url=run.store.url,
            shard=Shard(index, run.shards),
            folder=str(folder.absolute() if plan.address is None else folder),
            options=options,
            at_once=min(plan.workers, run.shards),
            namespace=run.run_id,
            has_ledger=has_ledger,
        )
        for index in range(run.shards)
    ]


def _secrets(settings: Settings, environ: Mapping[str, str], *, is_simulated: bool) -> dict[str, str]:
    """Return the keys and credentials that a shard needs, by the names of their variables."""
    found = {name: value for name, value in environ.items() if name.startswith(_PASSED)}
    if not is_simulated:
        keys = find_keys(settings, environ, simulate=False).keys
        # Its machine may lack the file that holds the key here.
        found[next(iter(settings.key_names), DEFAULT_KEY_NAME)] = ",".join(key.secret for key in keys)
    return found


def _governor_plan(run: JournaledRun, states: _States, options: RunOptions) -> GovernorPlan:
    settings = states.facts.settings
    budget = settings.budget
    currency = currency_of(settings, options)
    return GovernorPlan(
        settings=settings,
        shards=run.shards,
        limit=options.limit,
        max_failures=options.max_failures,
        run=None if budget is None or budget.run is None else to_nanos(budget.run.amount),
        process=None if currency.process is None else to_nanos(currency.process.amount),
        spent={shard: spent.get(currency.name or "", 0) for shard, spent in states.spent.items()},
    )


class _RayLog(TextIOBase):
    """Logs what is printed."""

    def write(self, text: str) -> int:
        """Log a text."""
        if text.strip():
            log.debug("%s", text.strip())
        return len(text)


@contextmanager
def _cluster(plan: RayPlan, run: JournaledRun) -> Iterator[None]:
    """Connect to a cluster, or start one of this machine alone, which listens on loopback and nowhere else."""
    import ray

    own: dict[str, Any] = {
        "num_cpus": max(1, round(plan.workers * _CPUS_OF_A_SHARD)),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": _LOOPBACK,
    }
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=plan.address or "local",
            namespace=run.run_id,
            configure_logging=False,
            log_to_driver=False,
            **({} if plan.address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"Ray can't be used: {error}", hint="check --ray-address with ray status") from None
    except Exception as error:
        # Ray has no class for its processes that do not start in time.
        raise ClusterError(
            f"Ray did not start: {error}", hint="run the same command again, when the machine is less busy"
        ) from None
    if is_main:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    # Ray prints what happens to its processes, whatever it is told; stdout is for what was asked for.
    with redirect_stdout(_RayLog()):
        try:
            if plan.address is None and (ip := ray.util.get_node_ip_address()) != _LOOPBACK:
                raise UsageError(
                    f"Ray would listen on {ip}, beyond this machine: it was imported before this run began",
                    hint="use the command line",
                )
            yield
        finally:
            ray.shutdown()


def _fleet(
    run: JournaledRun,
    assignments: list[Assignment],
    states: _States,
    limits: GovernorPlan,
    secrets: Mapping[str, str],
    observe: Observer,
) -> Fleet:
    import ray

    try:
        governor = (
            ray.remote(GovernorActor)
            .options(name=GOVERNOR_NAME, num_cpus=0, max_restarts=-1, max_task_retries=0)
            .remote(limits)
        )
    except ValueError:
        raise UsageError(
            f"another process drives the run of {run.store.url} on this cluster", hint="wait for its end"
        ) from None
    shard_class = ray.remote(ShardActor).options(
        num_cpus=_CPUS_OF_A_SHARD, max_restarts=0, max_task_retries=0
    )
    return Fleet(
        run.name,
        assignments,
        states.counts,
        start=lambda: shard_class.remote(secrets),
        is_death=lambda error: isinstance(error, ray.exceptions.RayActorError),
        forget=governor.forget.remote,
        observe=observe,
    )


def _result(run: JournaledRun, fleet: Fleet, facts: RunFacts) -> RunResult:
    """Return how a run ended, by what its journals hold."""
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        run_dir = write_snapshot(run, Path(folder))
        with reading(run_dir) as reader:
            counts = query.counts(reader, with_gone=False)
        summary = summary_of(run_dir)
    sample = RunResult(
        Path(run.store.url),
        run.name,
        facts.gateway,
        exit_code(fleet.stops, counts),
        counts,
        is_simulated=facts.origin.is_simulated,
        asset_store=facts.asset_url,
        summary=summary,
    )
    return merged_result(fleet, sample)
