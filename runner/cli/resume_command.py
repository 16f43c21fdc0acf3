"""`runner resume`."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.param_types import RUN_DIR
from runner.cli.shared_options import (
    ADOPT_RESULTS,
    ASSETS,
    BOUNDS,
    JOB,
    PACING,
    RETRY_FAILED,
    SAMPLE,
    SCENARIO,
    SHARD,
    TRUST,
    VERIFY,
    WATCHING,
    WHERE,
    or_newest_run,
    pop_display_options,
    run_options,
    with_options,
)

if TYPE_CHECKING:
    from runner.api.run_result import RunResult


@click.command("resume")
@click.argument("run_dirs", metavar="[RUN_DIR]...", type=RUN_DIR, nargs=-1, callback=or_newest_run)
@with_options(
    SHARD,
    JOB,
    WHERE,
    SAMPLE,
    RETRY_FAILED,
    VERIFY,
    ASSETS,
    TRUST,
    BOUNDS,
    ADOPT_RESULTS,
    PACING,
    SCENARIO,
    WATCHING,
)
def command(run_dirs: tuple[Path, ...], **values: Any) -> int:
    """
    Continue the run in RUN_DIR without its manifest; or those in several directories, one after the other.

    Without RUN_DIR it is the newest run. Pending jobs are submitted, submitted jobs are polled and downloaded, and no job is submitted twice. A
    simulated run stays simulated. The settings are those of the last run, unless options here override them.
    """
    from runner.api.run import resume
    from runner.cli.run_session import RunObserver, run_and_report, run_each_and_report

    display_options = pop_display_options(values)
    options = run_options(values)
    started_at = time.monotonic()

    def start(run_dir: Path) -> Callable[[RunObserver], Coroutine[Any, Any, RunResult]]:
        return lambda observer: resume(
            run_dir,
            options=options.after(time.monotonic() - started_at),
            observe=observer.event,
            on_started=observer.started,
            confirm_cost=observer.confirm_cost,
        )

    if len(run_dirs) == 1:
        return run_and_report(start(run_dirs[0]), options, display_options, title=run_dirs[0].name)
    if options.limit is not None:
        raise click.UsageError("--limit can't be used with several directories.")
    return run_each_and_report(
        {str(run_dir): start(run_dir) for run_dir in run_dirs}, options, display_options
    )
