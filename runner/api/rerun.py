"""
Run again what did not succeed, and make new, paid takes of videos that were rejected by a person or by checks.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from runner.api.budget import check_cost, pending_cost
from runner.api.config import announce_gateway, trusted_settings
from runner.api.execute import execute
from runner.api.job_choice import chosen_among, narrowed
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_dir import load_config, open_run, require_match, require_run
from runner.api.run_facts import command_folder, read_facts, run_dir_notice
from runner.api.run_result import Callbacks, RunResult, send_notifications
from runner.core.filenames import PART_SUFFIX, VERDICTS_NAME
from runner.core.model import FailureClass
from runner.disk import sync_folder, write_error
from runner.engine.events import ignore
from runner.results.verdicts import read_verdicts
from runner.schema.price_tables import pricer_for
from runner.store.database import reading
from runner.store.takes import Retake, rejected, requeue_retakes, select_retakes, take_path
from runner.store.transitions import RerunPlan, Selection, requeue_selected, select_for_rerun
from runner.store.work_list import JobFilter


async def rerun(
    run_dir: Path,
    selection: Selection = Selection(),
    *,
    options: RunOptions = DEFAULT_OPTIONS,
    confirm: Callable[[RerunPlan], None] = ignore,
    callbacks: Callbacks = Callbacks(),
) -> RunResult:
    """
    Run again what did not succeed: download what is undelivered, poll what timed out, submit what failed.

    Skipped unless their class is selected: uncertain jobs, lost ones, and those that moderation or the API's
    own checks refused. Lost tasks are polled once more first, in any case.

    Args:
        confirm: Gets the plan before anything is done; an exception from it stops everything.
    """

    def choose(reader: sqlite3.Connection) -> Callable[[sqlite3.Connection], None]:
        chosen = narrowed(reader, selection, options)
        confirm(select_for_rerun(reader, chosen))

        def requeue(connection: sqlite3.Connection) -> None:
            select_for_rerun(connection, chosen)
            requeue_selected(connection, at=time.time())

        return requeue

    return await run_chosen(
        run_dir,
        choose,
        options=options,
        require=lambda reader: _require_match(reader, selection),
        callbacks=callbacks,
        resubmit_lost=FailureClass.LOST in selection.classes,
    )


async def run_chosen(
    run_dir: Path,
    choose: Callable[[sqlite3.Connection], Callable[[sqlite3.Connection], None]],
    *,
    options: RunOptions,
    require: Callable[[sqlite3.Connection], None],
    callbacks: Callbacks,
    resubmit_lost: bool = False,
) -> RunResult:
    """
    Open a run, make some of its jobs pending again, and do only those.

    Args:
        choose: Chooses jobs with the reader, which keeps its own selection while the engine works; it returns what selects
            them in a transaction too and makes them pending.
        require: Raises if the options match no job.
    """
    started_at, observe = time.monotonic(), callbacks.observe
    require_run(run_dir)
    observe(run_dir_notice(run_dir))
    async with open_run(run_dir, options, observe) as store:
        require(store.reader)
        config = load_config(store, options)
        announce_gateway(config.gateway, config.gateway_source, observe, where=str(run_dir))
        requeue = choose(store.reader)
        if not config.origin.is_simulated:
            store.require_only()
        with store.transaction() as connection:
            requeue(connection)
            # After a no, all is as it was.
            check_cost(
                connection,
                config.settings,
                options,
                JobFilter(selected=True),
                callbacks.confirm_cost,
                is_simulated=config.origin.is_simulated,
            )
        result = await execute(
            store,
            config,
            options.after(time.monotonic() - started_at),
            JobFilter(selected=True),
            replace(callbacks, confirm_cost=None),
            resubmit_lost=resubmit_lost,
        )
    settings = trusted_settings(config, options, observe)
    return await send_notifications(
        result, settings, config.environ, folder=command_folder(config.origin.manifest)
    )


def plan_rerun(
    run_dir: Path, selection: Selection = Selection(), options: RunOptions = DEFAULT_OPTIONS
) -> RerunPlan:
    """Return what `rerun` would do, and change nothing; also while another process works on the run."""
    require_run(run_dir)
    with reading(run_dir, with_temp_tables=True) as reader:
        _require_match(reader, selection)
        return _with_cost(reader, select_for_rerun(reader, narrowed(reader, selection, options)))


def _with_cost(reader: sqlite3.Connection, plan: RerunPlan) -> RerunPlan:
    """Return a plan with what the selected jobs that it submits cost at most."""
    facts = read_facts(reader)
    if facts is not None and plan.to_submit:
        states = ("pending", "failed", "succeeded")
        plan.cost = pending_cost(reader, pricer_for(facts.settings), JobFilter(selected=True), states=states)
    return plan


def _require_match(reader: sqlite3.Connection, selection: Selection) -> None:
    facts = read_facts(reader)
    # A run that began from results has only the jobs that had not succeeded.
    if facts is not None and facts.origin.manifest is not None:
        require_match(reader, selection.glob)


async def retake(
    run_dir: Path,
    job: str | None = None,
    *,
    new_seed: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
    confirm: Callable[[RerunPlan], None] = ignore,
    callbacks: Callbacks = Callbacks(),
) -> RunResult:
    """
    Submit rejected jobs again, each as a new, paid attempt; their old takes are kept beside the new ones.

    Args:
        job: Only jobs whose id matches, as the shell matches file names.
        new_seed: Whether a request that names a seed gets another one.
        confirm: Gets the plan before anything is done; an exception from it stops everything.
    """

    def choose(reader: sqlite3.Connection) -> Callable[[sqlite3.Connection], None]:
        retakes = _rejected(reader, run_dir, job, options)
        select_retakes(reader, retakes)
        confirm(RerunPlan(to_submit=len(retakes)))
        retakes = _keep_files(run_dir, retakes)

        def requeue(connection: sqlite3.Connection) -> None:
            select_retakes(connection, retakes)
            requeue_retakes(connection, retakes, random.random if new_seed else None)

        return requeue

    # If the cost is refused, all is as it was, except for second names of files.
    return await run_chosen(
        run_dir,
        choose,
        options=options,
        require=lambda reader: require_match(reader, job),
        callbacks=callbacks,
    )


def plan_retake(run_dir: Path, job: str | None = None, options: RunOptions = DEFAULT_OPTIONS) -> RerunPlan:
    """Return what `retake` would do, and change nothing."""
    require_run(run_dir)
    with reading(run_dir, with_temp_tables=True) as reader:
        require_match(reader, job)
        retakes = _rejected(reader, run_dir, job, options)
        select_retakes(reader, retakes)
        return _with_cost(reader, RerunPlan(to_submit=len(retakes)))


def _rejected(
    reader: sqlite3.Connection, run_dir: Path, job: str | None, options: RunOptions
) -> list[Retake]:
    retakes = rejected(reader, read_verdicts(run_dir / VERDICTS_NAME), job)
    chosen = chosen_among(reader, [retake.seq for retake in retakes], options)
    ids = None if chosen is None else set(chosen)
    return [retake for retake in retakes if ids is None or retake.job_id in ids]


def _keep_files(run_dir: Path, retakes: list[Retake]) -> list[Retake]:
    """
    Give the files of old takes second names, durably; the new take then replaces the first one.

    Returns:
        The retakes, without assets whose files are gone.

    Raises:
        RunDirError, DiskFull: They can't be written; nothing has changed.
    """
    folders, kept_takes = set(), []
    for retake in retakes:
        assets = []
        for asset in retake.assets:
            old, kept = run_dir / asset.path, run_dir / take_path(asset.path, retake.attempt)
            try:
                _link(old, kept)
            except FileNotFoundError:
                # It was deleted, and there is nothing to keep; or it was uploaded, and stays there.
                if asset.url is not None:
                    assets.append(asset)
                continue
            except OSError as error:
                raise write_error(error, kept) from None
            folders.add(kept.parent)
            assets.append(asset)
        kept_takes.append(replace(retake, assets=tuple(assets)))
    for folder in folders:
        sync_folder(folder)
    return kept_takes


def _link(old: Path, kept: Path) -> None:
    with suppress(FileExistsError):
        try:
            os.link(old, kept)
        except FileNotFoundError:
            raise
        except FileExistsError:
            raise
        except OSError:
            # Some file systems have no second names.
            part = kept.with_name(f"{kept.name}{PART_SUFFIX}")
            shutil.copyfile(old, part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(kept)
