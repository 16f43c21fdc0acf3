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
    WATCHING,
    pop_display_options,
    run_options,
    with_options,
)
from runner.cli.param_types import RUN_DIR


@click.command("resume")
@click.argument("run_dir", type=RUN_DIR)
@with_options(JOB, RETRY_FAILED, BOUNDS, PACING, SCENARIO, WATCHING)
def command(run_dir: Path, **values: Any) -> int:
    """
    Go on with the run in RUN_DIR without its manifest.

    What is pending is submitted, what was submitted is polled and downloaded; nothing is submitted twice. A
    simulated run goes on simulated. The settings are those of the last run, with the options here over them.
    """
    from runner.api.run import resume
    from runner.cli.run_session import run_and_report

    wishes = pop_display_options(values)
    options = run_options(values)
    return run_and_report(
        lambda watch: resume(run_dir, options=options, observe=watch.event, on_started=watch.started),
        options,
        wishes,
        title=run_dir.name,
    )
