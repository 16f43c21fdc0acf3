"""Run a manifest, and resume a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runner.api.asset_store import verify_assets
from runner.api.budget import check_cost
from runner.api.config import (
    RunConfig,
    announce_gateway,
    apply_options,
    find_keys,
    gateway_source,
    ignored_variables,
    read_environment,
    trusted_settings,
    warn_unencrypted,
)
from runner.api.execute import execute
from runner.api.job_choice import chosen_ids
from runner.api.journals import begin_journal
from runner.api.manifest_jobs import load_into
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_dir import load_config, open_run, require_match, require_run
from runner.api.run_facts import (
    KnownRun,
    RunFacts,
    RunOrigin,
    command_folder,
    default_run_dir,
    expand_date,
    known_run,
    output_root,
    run_dir_notice,
    series_of,
)
from runner.api.run_ledger import with_ledger
from runner.api.run_result import Callbacks, RunResult, send_notifications
from runner.api.series import Series, catch_up, delete_older, require_series
from runner.api.shards import check_shard_options, require_same_shard
from runner.api.simulate import check_simulation
from runner.api.state_dir import remember, require_continued
from runner.core.lifecycle import State
from runner.core.settings import Settings
from runner.engine.events import Notice, Observer
from runner.gateway.credentials import KeySet
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.store.journal import Journal
from runner.store.store import Store
from runner.store.transitions import Selection, requeue_selected, select_for_rerun
from runner.store.work_list import JobFilter, choose
from runner.store.writer import in_thread

if TYPE_CHECKING:
    from runner.engine.governor_client import GovernorClient

_CUT_SHORT = (130, 143, 3)
"""Exit codes after which no older run is deleted: something is wrong, and it may be wanted."""


async def run(
    manifest: Path,
    callbacks: Callbacks = Callbacks(),
    *,
    output: Path | None = None,
    folder: Path | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
) -> RunResult:
    """
    Run a manifest: submit new jobs, poll and download those that were submitted, and write the results.

    The same call again continues where the first one stopped, and does nothing when all is done.

    Args:
        output: The run directory; for the default see `default_run_dir`. ``${date}`` in it is today in UTC.
        folder: Where relative paths begin, and ``.env`` is; None for the folder of the manifest.

    Raises:
        ManifestError: The manifest has errors; nothing was sent.
        CredentialsMissing: No key is set; nothing was sent.
        RunDirError: The run directory can't be used, or the manifest was run elsewhere.
        UsageError: Options do not fit the run that the directory holds.
    """
    started_at, observe = time.monotonic(), callbacks.observe
    plan = _prepare(manifest, output, folder or manifest.parent, options, callbacks)
    async with open_run(plan.run_dir, options, observe, journal=plan.journal) as store:
        read = plan.manifest, plan.settings, options, plan.problems, plan.series, plan.environ
        facts, ids = load_into(store, *read, observe)
        await _begin(store, plan, options, observe)
        scope, callbacks = _choose_jobs(store, facts, options, callbacks, ids)
        if plan.series is not None and options.catch_up:
            older = Series(manifest, plan.series, options.simulate).unfinished(plan.run_dir, observe)
            callbacks = await catch_up(older, options, callbacks)
        is_known = options.simulate or store.has_attempts
        result = await execute(
            store,
            plan.config(facts, options),
            options.after(time.monotonic() - started_at),
            scope,
            callbacks,
            on_begin=None if is_known else partial(remember, manifest, plan.own),
        )
    if plan.is_series and result.exit_code not in _CUT_SHORT:
        keep_runs, keep_days = options.keep_runs, options.keep_days
        kept = delete_older(plan.run_dir, keep_runs=keep_runs, keep_days=keep_days, today=plan.today)
        result = replace(result, retention=kept)
    return await send_notifications(result, plan.settings, plan.environ, folder=command_folder(manifest))


class _Prepared(Struct, frozen=True, kw_only=True):
    """
    What a run needs before it opens its directory.

    Attributes:
        own: What is remembered of the run on this machine.
        series: See `series_of`; that of a shard is its own.
        is_series: Whether older runs of the series are deleted at the end.
    """

    manifest: Manifest
    problems: ProblemCollector
    settings: Settings
    keys: KeySet
    environ: Mapping[str, str]
    run_dir: Path
    today: date
    own: KnownRun
    series: str | None
    is_series: bool
    journal: Journal | None

    def config(self, facts: RunFacts, options: RunOptions) -> RunConfig:
        """Return what is in force for a run with these facts."""
        needs_base_url = False
        if options.base_url and not options.simulate:
            others = replace(options, base_url=None)
            named = gateway_source(facts.gateway, others, self.environ, lambda: self.manifest.header.settings)
            needs_base_url = named is None
        return RunConfig(
            facts.settings,
            facts.origin,
            self.keys,
            self.environ,
            needs_base_url=needs_base_url,
            hook=facts.settings.on_asset,
        )


def _prepare(
    manifest: Path, output: Path | None, folder: Path, options: RunOptions, callbacks: Callbacks
) -> _Prepared:
    """Read a manifest, and determine what is in force and where the run is; nothing is written yet."""
    if options.scenario is not None or options.real_time:
        check_simulation(options, simulate=options.simulate)
    today = datetime.now(UTC).date()
    environ, observe = read_environment(options, folder), callbacks.observe
    problems = ProblemCollector(callbacks.on_problem)
    loaded = load(
        manifest, problems, variables=options.var, today=today, folder=folder, is_strict=options.strict
    )
    settings, sources = apply_options(loaded.header.settings, options, environ)
    if names := ignored_variables(options, folder):
        message = f"{folder / '.env'}: ignored {', '.join(names)}: it may set keys, but no addresses"
        observe(Notice("warning", message, "export them, or name the file with --env-file"))
    if sources["gateway.base_url"] != "manifest" and not options.simulate:
        warn_unencrypted(settings.base_url or "", observe)
    keys = find_keys(settings, environ, simulate=options.simulate)
    name, shard = loaded.header.name, options.shard
    if shard is not None or options.per_shard:
        check_shard_options(options, settings)
    series = series_of(loaded.header.name_template, output)
    run_dir = output or default_run_dir(manifest, name, simulate=options.simulate, shard=shard)
    run_dir = expand_date(run_dir, today)
    own = known_run(run_dir, name, series, shard)
    if (budget := settings.budget) is not None:
        budget = with_ledger(budget, output_root(manifest), simulate=options.simulate)
        settings = replace(settings, budget=budget)
    is_series = options.keep_runs is not None or options.keep_days is not None
    if is_series:
        require_series(run_dir)
    observe(run_dir_notice(run_dir))
    if series is not None and shard is not None:
        # What an older run of the series left is fetched by the same shard.
        series = f"{series} shard {shard}"
    journal = None
    if options.journal is not None:
        origin = RunOrigin(None, options.simulate, sharded=False, shard=shard)
        journal = begin_journal(options.journal, RunFacts(settings, origin), environ)
    # A journal that has begun is continued, wherever the directory was.
    if not (options.simulate or options.new or (journal is not None and journal.has_begun())):
        require_continued(manifest, own, callbacks.confirm_new)
    return _Prepared(
        manifest=loaded,
        problems=problems,
        settings=settings,
        keys=keys,
        environ=environ,
        run_dir=run_dir,
        today=today,
        own=own,
        series=series,
        is_series=is_series,
        journal=journal,
    )


async def _begin(store: Store, plan: _Prepared, options: RunOptions, observe: Observer) -> None:
    """Let a run whose jobs were saved count as begun in its journal; one that has attempts is known on this machine, too."""
    if options.shard is not None and store.journal is None and not store.has_attempts:
        message = "without a journal: this shard is lost with its disk, and what it submitted would be paid for again"
        observe(Notice("journal", message, "add --journal URL to keep it in a shared store as well"))
    # First: else a run that was cut off here could not continue elsewhere.
    if store.journal is not None:
        await in_thread(store.give_base)
    if not options.simulate and store.has_attempts:
        remember(plan.manifest.path, plan.own)


async def resume(
    run_dir: Path,
    callbacks: Callbacks = Callbacks(),
    *,
    options: RunOptions = DEFAULT_OPTIONS,
    governor: GovernorClient | None = None,
) -> RunResult:
    """
    Continue a run without its manifest.

    Args:
        governor: Has the limits of the run, of which the directory is one shard that is worked on with others; nobody is
            notified of its end.

    Raises:
        StoreMissing: The directory is not a run directory.
        CredentialsMissing, RunDirError: As for `run`.
    """
    started_at, observe = time.monotonic(), callbacks.observe
    require_run(run_dir)
    observe(run_dir_notice(run_dir))
    async with open_run(run_dir, options, observe) as store:
        require_match(store.reader, options.job)
        ids = chosen_ids(store.reader, options)
        config = load_config(store, options)
        if options.shard is not None:
            require_same_shard(config.origin, run_dir, options.shard)
        announce_gateway(config.gateway, config.gateway_source, observe, where=str(run_dir))
        if options.verify:
            verify_assets(store, config.environ, observe)
        scope, callbacks = _choose_jobs(store, config, options, callbacks, ids)
        result = await execute(
            store,
            config,
            options.after(time.monotonic() - started_at),
            scope,
            callbacks,
            governor=governor,
        )
    if governor is not None:
        return result
    settings = trusted_settings(config, options, observe)
    return await send_notifications(
        result, settings, config.environ, folder=command_folder(config.origin.manifest)
    )


def _choose_jobs(
    store: Store, facts: RunFacts, options: RunOptions, callbacks: Callbacks, ids: tuple[str, ...] | None
) -> tuple[JobFilter, Callbacks]:
    """
    Return the jobs to work on, and the callbacks without what was asked.

    Failed jobs are made pending if the options say so, after a look at the cost.
    """
    scope = JobFilter(glob=options.job, chosen=ids is not None)
    if options.retry_failed:
        # The same selection as a rerun; an exception undoes everything.
        with store.transaction() as connection:
            select_for_rerun(
                connection, Selection(states=frozenset({State.FAILED}), glob=options.job, ids=ids)
            )
            requeue_selected(connection, at=time.time())
            if ids is not None:
                choose(connection, ids)
            confirm, is_simulated = callbacks.confirm_cost, facts.origin.is_simulated
            check_cost(connection, facts.settings, options, scope, confirm, is_simulated=is_simulated)
        callbacks = replace(callbacks, confirm_cost=None)
    if ids is not None:
        choose(store.reader, ids)
    return scope, callbacks
