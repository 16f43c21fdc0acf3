"""`runner resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runner.cli.options import (
    BOUNDS,
    JOB,
    PACING,
    RETRY_FAILED,
    SCENARIO,
    TRUST,
    WATCHING,
    pop_display_options,
    run_options,
    with_options,
)
from runner.cli.param_types import RUN_DIR


@click.command("resume")
@click.argument("run_dir", type=RUN_DIR)
@with_options(JOB, RETRY_FAILED, TRUST, BOUNDS, PACING, SCENARIO, WATCHING)
def command(run_dir: Path, **values: Any) -> int:
    """
    Continue the run in RUN_DIR without its manifest.

    Pending jobs are submitted, submitted jobs are polled and downloaded, and no job is submitted twice. A
    simulated run stays simulated. The settings are those of the last run, unless options here override them.
    """
    from runner.api.run import resume
    from runner.cli.run_session import run_and_report

    display_options = pop_display_options(values)
    options = run_options(values)
    return run_and_report(
        lambda observer: resume(
            run_dir, options=options, observe=observer.event, on_started=observer.started
        ),
        options,
        display_options,
        title=run_dir.name,
    )
