"""`runner check-media`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner import jsontext
from runner.cli.console import echo_stdout
from runner.cli.displays import show_event
from runner.cli.param_types import RUN_DIR
from runner.core.units import format_count

if TYPE_CHECKING:
    from runner.api.check_media import CheckResult


@click.command("check-media")
@click.argument("run_dir", metavar="RUN_DIR", type=RUN_DIR)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run_dir: Path, as_json: bool) -> int:
    """
    Check the videos of the run in RUN_DIR: black, frozen, silent, length, size, frames per second, near duplicates.

    The checks are those of the manifest, or all if it has none. What they find is written to the results as
    warnings; it changes no job's state, and costs nothing. Needs the extra `media`.
    """
    from runner.api.check_media import check_media, check_result_json

    result = asyncio.run(check_media(run_dir, observe=show_event))
    if as_json:
        echo_stdout(jsontext.dumps(check_result_json(result)).decode())
        return 0
    for line in _lines(result):
        echo_stdout(line)
    return 0


def _lines(result: CheckResult) -> Iterator[str]:
    for job_id, warnings in result.jobs.items():
        for warning in warnings:
            yield f"{job_id}: {warning}"
    found = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(result.failed.items()))
    yield f"{format_count(result.videos, 'video')} checked: {found or 'nothing found'}"
    if result.rejected:
        yield f"rejected: {result.rejected:,}; for a new, paid take of each: runner rerun RUN_DIR --verdict reject"
