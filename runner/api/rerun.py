"""Run again what did not succeed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from runner.api.notify import told
from runner.api.options import RunOptions
from runner.api.run_dir import opened, remembered, require_run, with_time_left
from runner.api.work import Outcome, Started, ignore_engine, ignore_event, work
from runner.core.lifecycle import State
from runner.engine.events import Observer
from runner.store import Store, query
from runner.store.transitions import RerunPlan, Selection, choose, rerun_chosen


async def rerun(
    run_dir: Path,
    selection: Selection = Selection(),
    *,
    options: RunOptions = RunOptions(),
    confirm: Callable[[RerunPlan], None] = ignore_event,
    observe: Observer = ignore_event,
    started: Started = ignore_engine,
) -> Outcome:
    """
    Run again what did not succeed: download what is undelivered, poll what timed out, submit what failed.

    Left alone unless their class is named: jobs in doubt, lost ones, and those that moderation or the API's
    own checks refused.

    Args:
        confirm: Gets the plan before anything is done; an exception from it stops everything.
    """
    began = time.monotonic()
    require_run(run_dir)
    async with opened(run_dir, options.if_locked, observe) as store:
        confirm(choose(store.reader, selection))
        # The engine's own connection sees what is committed here, and keeps the choice while it works.
        todo = remembered(store, with_time_left(options, began), query.Scope(chosen=True))
        with store.transaction() as connection:
            choose(connection, selection)
            rerun_chosen(connection, at=time.time())
        outcome = await work(store, todo, observe, started)
    return await told(outcome, todo.settings)


def plan_rerun(run_dir: Path, selection: Selection = Selection()) -> RerunPlan:
    """Say what `rerun` would do, and change nothing."""
    require_run(run_dir)
    with Store(run_dir) as store:
        return choose(store.reader, selection)


def retry_failed(store: Store, job: str | None) -> None:
    """Make failed jobs pending again, by the same choice as a rerun."""
    with store.transaction() as connection:
        choose(connection, Selection(states=frozenset({State.FAILED}), glob=job))
        rerun_chosen(connection, at=time.time())
