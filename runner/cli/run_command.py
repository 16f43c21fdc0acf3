"""`runner run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runner.cli.options import (
    BOUNDS,
    DEFAULTS,
    JOB,
    PACING,
    RETRY_FAILED,
    SCENARIO,
    SIMULATE,
    WATCHING,
    parsed_by,
    pop_display_options,
    run_options,
    variable_option,
    with_options,
)
from runner.cli.param_types import MANIFEST, RUN_DIR
from runner.core.model import OnChanged


@click.command("run")
@click.argument("manifest", type=MANIFEST)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=RUN_DIR,
    help="The run directory, by default output/ and the manifest's name; ${date} in it is today in UTC.",
)
@with_options(SIMULATE, SCENARIO, JOB, RETRY_FAILED)
@click.option("--skip-invalid", is_flag=True, help="Record invalid jobs as failed, and run the others.")
@click.option("--strict", is_flag=True, help="Take warnings of the manifest for errors.")
@click.option(
    "--on-changed",
    type=click.Choice([choice.value for choice in OnChanged]),
    default=DEFAULTS.on_changed.value,
    show_default=True,
    callback=parsed_by(OnChanged),
    help="Jobs whose request is not the one that ran under their id: refuse, leave them, or submit (and pay for) them.",
)
@variable_option
@click.option(
    "--keep-runs",
    metavar="N",
    type=click.IntRange(min=1),
    help="For a name or -o with ${date}: delete older runs at the end, all but the newest N. Never one with "
    "unfinished jobs or jobs in doubt.",
)
@click.option(
    "--keep-days", metavar="N", type=click.IntRange(min=0), help="Likewise, all but those of the last N days."
)
@with_options(BOUNDS, PACING, WATCHING)
def command(manifest: Path, output: Path | None, **values: Any) -> int:
    """
    Run a MANIFEST, or a batch file of JSON lines: every video on disk, and one line per job.

    The same command again goes on where it stopped, and does nothing when all is done. Ctrl-C once finishes what
    is in hand, twice stops at once; neither loses anything.
    """
    from runner.api.run import run
    from runner.cli.run_session import run_and_report

    wishes = pop_display_options(values)
    options = run_options(values)
    return run_and_report(
        lambda watch: run(
            manifest,
            output=output,
            options=options,
            observe=watch.event,
            on_problem=watch.problem,
            on_started=watch.started,
        ),
        options,
        wishes,
        title=manifest.stem,
    )
