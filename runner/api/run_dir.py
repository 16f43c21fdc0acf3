"""Open a run directory for work: its lock, its recovery after a crash or a restored ``run.db``, its configuration."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from runner.api.asset_store import refetch_lost_files, with_chosen_store
from runner.api.config import (
    RunConfig,
    apply_options,
    find_keys,
    gateway_source,
    manifest_settings,
    refused_gateway,
    run_environment,
    trusted_hook,
)
from runner.api.job_choice import ids_to_compare, no_match
from runner.api.journals import fetch_media, journal_of
from runner.api.options import IfLocked, RunOptions
from runner.api.run_facts import RunFacts, read_facts, require_same_kind
from runner.api.simulate import check_simulation
from runner.core.filenames import DB_NAME, RESULTS_NAME
from runner.core.lifecycle import WITH_A_TASK, State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.sanitize import command_text
from runner.core.units import format_count
from runner.engine.events import Notice, Observer
from runner.errors import RunLocked, RunnerError, StoreMissing
from runner.manifest.unchecked_job import request_digest
from runner.results.inline_media import restore_inline_media
from runner.store import query, work_list
from runner.store.database import not_a_run, reading
from runner.store.freshness import jobs_with_unknown_assets
from runner.store.journal import Journal
from runner.store.lock import Place
from runner.store.store import Store
from runner.store.transitions import adopt_records, mark_uncertain, recover
from runner.store.work_list import JobFilter

RETRY_LOCK_S = 1.0


def require_run(run_dir: Path) -> None:
    """
    Check that a directory is a run directory.

    Raises:
        StoreMissing: It is not.
    """
    if not (run_dir / DB_NAME).exists() and not (run_dir / RESULTS_NAME).exists():
        raise not_a_run(run_dir)


def _has_database(run_dir: Path) -> bool:
    # One that can't be looked at can't be opened either, which says why.
    return os.path.exists(run_dir / DB_NAME)


@asynccontextmanager
async def open_run(
    run_dir: Path,
    options: RunOptions,
    observe: Observer,
    *,
    journal: Journal | None = None,
) -> AsyncIterator[Store]:
    """
    Open a run directory, after waiting for another process if that is wanted.

    Jobs that a dead process left between intent and answer become uncertain.

    Args:
        options: Whether to wait for another process, whether to add what only the results know to ``run.db`` instead of
            refusing such a directory, and the environment.
        journal: The run's journal; by default the one that the directory belongs to, if any.
    """
    # A new directory belongs to none.
    if journal is None and _has_database(run_dir):
        journal = journal_of(run_dir, options)
    with ExitStack() as stack:
        store = Store(run_dir, journal=journal, is_adopted=options.adopt_results)
        try:
            stack.enter_context(store)
        except RunLocked as error:
            if options.if_locked is not IfLocked.WAIT:
                raise
            observe(Notice("waiting", f"{error.message}; waiting for it"))
            await _enter_unlocked(stack, store)
        if (known := store.note_place()) is not None:
            _warn_of_copy(store, known, observe)
        if options.adopt_results:
            adopt_results(store, observe)
        if store.has_attempts:
            with store.transaction() as connection:
                lost = recover(connection, at=time.time())
            if lost:
                jobs = f"{format_count(lost, 'job')} {'is' if lost == 1 else 'are'} uncertain"
                observe(Notice("recovered", f"the last process ended while it submitted: {jobs}"))
        if store.is_rebuilt:
            observe(Notice("journal", f"{run_dir} was brought up to date from its journal"))
            refetch_lost_files(store)
        if store.journal is not None:
            fetch_media(store, store.journal)
        yield store


def _warn_of_copy(store: Store, known: Place, observe: Observer) -> None:
    counts = query.counts(store.reader)
    if sum(counts.values()) > counts[State.SUCCEEDED]:
        message = f"{store.run_dir} was copied or moved from {known.path} on host {known.host}"
        observe(Notice("warning", message, "continue with one of them only: two would pay for the same jobs"))


async def _enter_unlocked(stack: ExitStack, store: Store) -> None:
    """Open a store once no other process uses it."""
    while True:
        await asyncio.sleep(RETRY_LOCK_S)
        with suppress(RunLocked):
            stack.enter_context(store)
            return


def require_match(connection: sqlite3.Connection, glob: str | None) -> None:
    """
    Check that a pattern matches a job of the run.

    Raises:
        UsageError: It matches none; the hint has the nearest id.
    """
    if glob is None or work_list.matches(connection, JobFilter(glob=glob)).jobs:
        return
    raise no_match(glob, ids_to_compare(connection))


def load_config(store: Store, options: RunOptions) -> RunConfig:
    """
    Read back what the run needs, and apply the options to it.

    The gateway is the one that its tasks were submitted to; only ``--base-url`` changes that, not the
    environment, since a task that is polled elsewhere looks lost.

    Raises:
        StoreMissing: No manifest was ever loaded into this directory.
        CredentialsMissing: No key is set.
        UsageError: The options do not fit the run, or only the directory names its gateway.
        ScenarioError: The scenario is not valid.
        ObjectStoreError: Nothing can be uploaded to the store that the options name.
    """
    saved = require_facts(store.reader, store.run_dir)
    simulate = saved.origin.is_simulated
    if options.simulate:
        require_same_kind(saved.origin, store.run_dir, simulate=True)
    check_simulation(options, simulate=simulate)
    environ = run_environment(saved, options)
    settings, _ = apply_options(saved.settings, options, {})
    facts = RunFacts(settings, saved.origin)
    source = _gateway_source(facts, options, environ)
    if source is None:
        raise refused_gateway(facts.gateway, str(store.run_dir))
    keys = find_keys(settings, environ, simulate=simulate)
    needs_base_url = _gateway_source(facts, replace(options, base_url=None), environ) is None
    hook = trusted_hook(saved, options)
    origin = with_chosen_store(store, saved, options, environ)
    return RunConfig(settings, origin, keys, environ, source, needs_base_url, hook)


def planned_gateway(run_dir: Path, options: RunOptions) -> tuple[str, str | None]:
    """Return the gateway that a run would continue with, and what names it; None if only the directory does."""
    with reading(run_dir) as reader:
        saved = require_facts(reader, run_dir)
    settings, _ = apply_options(saved.settings, options, {})
    facts = RunFacts(settings, saved.origin)
    return facts.gateway, _gateway_source(facts, options, run_environment(saved, options))


def continue_options(run_dir: Path) -> tuple[str, ...]:
    """
    Return the options that a command to continue a run needs, as words: the scenario, the file of keys, the gateway.

    Raises:
        StoreMissing: No manifest was ever loaded into the directory.
        RunDirError: Its ``run.db`` can't be read.
    """
    with reading(run_dir) as reader:
        saved = require_facts(reader, run_dir)
    scenario, env_file = saved.origin.scenario, saved.origin.env_file
    needed: tuple[str, ...] = () if scenario is None else ("--scenario", scenario)
    needed += () if env_file is None else ("--env-file", env_file)
    options = RunOptions(env_file=None if env_file is None else Path(env_file))
    try:
        source = _gateway_source(saved, options, run_environment(saved, options))
    except RunnerError:
        # The file is not there any more: whatever it named is named here.
        source = None
    return needed if source is not None else (*needed, "--base-url", saved.gateway)


def require_facts(reader: sqlite3.Connection, run_dir: Path) -> RunFacts:
    """
    Read what a run remembers.

    Raises:
        StoreMissing: No manifest was ever loaded into its directory.
    """
    saved = read_facts(reader)
    if saved is None:
        raise StoreMissing(
            f"{run_dir} holds no run yet: no manifest was loaded into it",
            hint="start it with: runner run MANIFEST",
        )
    return saved


def _gateway_source(facts: RunFacts, options: RunOptions, environ: Mapping[str, str]) -> str | None:
    if facts.origin.is_simulated:
        return "--simulate"
    return gateway_source(facts.gateway, options, environ, partial(manifest_settings, facts))


def adopt_results(store: Store, observe: Observer) -> None:
    """
    Add the attempts, tasks and assets to the store that only the results have, and report how many jobs changed.

    A job that only has a file in the folder of assets becomes uncertain: its task is not known. What the results
    do not have either remains unknown, such as tasks that were being rendered when the process was killed.

    Raises:
        ResultsError: The results can't be read.
    """
    now_at = time.time()
    path = store.run_dir / RESULTS_NAME
    with store.transaction() as connection:
        adopted = adopt_records(connection, _records(store, now_at), at=now_at) if path.exists() else 0
        why = "its file is in the folder of assets, and neither run.db nor the results know its task"
        unknown = list(jobs_with_unknown_assets(connection, store.run_dir))
        mark_uncertain(connection, unknown, Failure(FailureClass.UNCERTAIN_SUBMIT, why), at=now_at)
    store.has_attempts = query.has_attempts(store.reader)
    pending = query.counts(store.reader, with_gone=False)[State.PENDING]
    message = f"taken over from {path}: {format_count(adopted, 'job')}"
    if unknown:
        message += f"; uncertain, since only their files are there: {format_count(len(unknown), 'job')}"
    observe(Notice("adopted", message))
    if pending:
        # Which of them had a task when the process was killed is written nowhere.
        message = (
            f"{format_count(pending, 'job')} without a line there count as never submitted; what was submitted just "
            "before a kill has no line either, and would be paid for again"
        )
        hint = "--limit 0 submits nothing while you look for such tasks in the account"
        observe(Notice("warning", message, hint))
        observe(
            Notice(
                "warning",
                f"to take over such a task: {command_text('runner', 'resolve', store.run_dir)} JOB --task-id ID",
            )
        )


def _records(store: Store, now_at: float) -> Iterator[JobRecord]:
    # Hardly any run directory is without its database.
    from runner.results.reader import open_results

    for result in open_results(store.run_dir / RESULTS_NAME):
        request = restore_inline_media(result.record.request).request
        record = replace(result.record, request=request, digest=request_digest(request))
        yield as_left_by_a_process(record, now_at)


def as_left_by_a_process(record: JobRecord, now_at: float) -> JobRecord:
    """Return a job of a results file as a later process must treat it: without its task's id it is uncertain."""
    if record.state is State.SUBMITTING:
        why = "the results were written before its POST was answered"
    elif record.state in WITH_A_TASK and not record.task_id:
        why = f"the results call it {record.state} and do not name its task"
    else:
        return record
    failure = Failure(FailureClass.UNCERTAIN_SUBMIT, why)
    return replace(record, state=State.UNCERTAIN, error=failure, finished_at=now_at)
