"""`runner jobs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.api.jobs import jobs
from runner.cli.console import command_text, echo_stderr, echo_stdout
from runner.cli.param_types import CLASS
from runner.cli.shared_options import JOB, RUN_OR_NEWEST, STATUS, WHERE, as_given, with_options
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.sanitize import sanitize_line
from runner.core.units import format_count, format_duration
from runner.results.formats import line_bytes

if TYPE_CHECKING:
    from runner.core.where import Condition

_ID_CHARS = 40
_DETAIL_CHARS = 100


@click.command("jobs")
@RUN_OR_NEWEST
@STATUS
@click.option(
    "--class",
    "classes",
    type=CLASS,
    multiple=True,
    help="Only jobs with this failure class. May be given several times.",
)
@with_options(JOB, WHERE)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each job, as in results.jsonl."
)
def command(
    run_dir: Path,
    states: tuple[str, ...],
    classes: tuple[str, ...],
    job: str | None,
    where: tuple[Condition, ...],
    as_json: bool,
) -> None:
    """
    List the jobs of the run in RUN_DIR, in manifest order, even while the run is active.

    Without RUN_DIR it is the newest run. Each line has the job's id, state, model, and what became of it.
    """
    found = jobs(
        run_dir,
        states=frozenset(map(State, states)),
        classes=frozenset(map(FailureClass, classes)),
        glob=job,
        where=where,
    )
    count = 0
    for count, record in enumerate(found.records, 1):  # noqa: B007
        if as_json:
            click.echo(line_bytes(record, run=found.run, gateway=found.gateway).decode(), nl=False)
        else:
            echo_stdout(_line(record))
    if not as_json:
        show = f"; details of one: {command_text('runner', 'show', as_given(run_dir))} JOB" if count else ""
        echo_stderr(f"{format_count(count, 'job')}{show}")


def _line(record: JobRecord) -> str:
    job_id = sanitize_line(record.job_id, max_chars=_ID_CHARS)
    detail = sanitize_line("; ".join(_details(record)), max_chars=_DETAIL_CHARS)
    return f"{job_id:<24}  {record.state.label:<11}  {record.model:<26}  {detail}".rstrip()


def _details(record: JobRecord) -> Iterator[str]:
    if record.error is not None:
        yield f"{record.error.cls}: {record.error.message}"
    elif record.assets:
        yield record.assets[0].url or record.assets[0].path
    elif record.task_id is not None:
        yield f"task {record.task_id}"
    if record.generate_s is not None:
        yield f"generated in {format_duration(record.generate_s)}"
    if len(record.attempts) > 1:
        yield format_count(len(record.attempts), "attempt")
