"""`runner status`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from msgspec.structs import asdict

from runner.api.budgets_left import budgets_json
from runner.api.run_dir import continue_options
from runner.api.status import Status, status
from runner.cli.console import command_text, echo_stdout
from runner.cli.shared_options import RUN_OR_NEWEST, as_given
from runner.core.lifecycle import State
from runner.core.sanitize import sanitize_line
from runner.core.summary import takes_text
from runner.core.units import format_count, format_duration, format_rate
from runner.results.formats import utc_text

_WATCH_EVERY_S = 2.0
_MAX_STUCK_LISTED = 10


@click.command("status")
@RUN_OR_NEWEST
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line every time.")
@click.option("--watch", is_flag=True, help="Update every two seconds until the run is not active any more.")
def command(run_dir: Path, as_json: bool, watch: bool) -> None:
    """
    Show the status of the run in RUN_DIR: counts, rates, time left, the limiting setting, stuck tasks.

    Without RUN_DIR it is the newest run.
    """
    drawn = 0
    try:
        while True:
            found = status(run_dir)
            if as_json:
                click.echo(json.dumps(_json(found)))
            else:
                drawn = _draw(list(_lines(found)), over=drawn if sys.stdout.isatty() else 0)
            if not watch or found.holder is None:
                return
            time.sleep(_WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def _draw(lines: list[str], *, over: int) -> int:
    """Print lines over the last ``over`` ones, and return their number."""
    if over:
        click.echo(f"\x1b[{over}A\x1b[J", nl=False)
    for line in lines:
        echo_stdout(line)
    return len(lines)


def _json(found: Status) -> dict[str, object]:
    return {
        "jobs": found.jobs,
        "by_status": {state.value: count for state, count in found.by_state.items()},
        "by_class": dict(found.by_class),
        "running": found.holder is not None,
        "holder": found.holder,
        "run": found.name,
        "submitted_per_min": round(found.submitted_per_s * 60, 2),
        "finished_per_min": round(found.finished_per_s * 60, 2),
        "seconds_left": None if found.seconds_left is None else round(found.seconds_left, 1),
        "binding": found.limited_by,
        "stuck": [asdict(job) for job in found.stuck],
        "lost_files": found.lost_files,
        "not_seen": found.not_seen,
        "cost": [spend.json() for spend in found.spend],
        "awaiting_take": found.awaiting_take,
        "budget": budgets_json(found.budgets),
        "first_submitted_at": utc_text(found.first_submitted_at),
        "last_finished_at": utc_text(found.last_finished_at),
    }


def _lines(found: Status) -> Iterator[str]:
    where = as_given(found.run_dir)
    yield f"{where}: {format_count(found.jobs, 'job')}, {_activity(found)}"
    for state, count in found.by_state.items():
        if count:
            yield f"  {count:>9,}  {state.label}"
    if found.awaiting_take:
        yield f"  {takes_text(found.awaiting_take)}"
    if found.by_class:
        yield "  by failure class:"
    for cls, count in found.by_class.items():
        yield f"  {count:>9,}  {cls}"
    for spend in found.spend:
        yield f"  {spend}"
    for budget in found.budgets:
        yield f"  {budget}"
    if found.holder is not None:
        yield from _progress(found)
    if found.by_state[State.UNCERTAIN]:
        resolve = f"{command_text('runner', 'resolve', where)} JOB..."
        yield f"look for the tasks of uncertain jobs in your account, then: {resolve}"
    if found.lost_files:
        files = format_count(len(found.lost_files), "file")
        verify = ("runner", "resume", where, "--verify", *continue_options(found.run_dir))
        yield f"missing, or of another size: {files}, for example {sanitize_line(found.lost_files[0], max_chars=200)}"
        yield f"download again, free of charge: {command_text(*verify)}"
    if found.not_seen is not None:
        yield f"not looked for in the object store: the uploaded files ({found.not_seen})"
    if found.holder is None and found.left:
        resume = command_text("runner", "resume", where, *continue_options(found.run_dir))
        yield f"continue with: {resume}"


def _activity(found: Status) -> str:
    if found.holder is not None:
        return f"active ({found.holder})"
    return "not active" if found.left else "nothing left to do"


def _progress(found: Status) -> Iterator[str]:
    submitted, finished = (
        format_rate(per_s) if per_s else "0/min" for per_s in (found.submitted_per_s, found.finished_per_s)
    )
    yield f"  submitted {submitted}, finished {finished} (last 10 minutes)"
    left = "not known yet" if found.seconds_left is None else format_duration(found.seconds_left)
    yield f"  time left: {left}" + (f"; limited by {found.limited_by}" if found.limited_by else "")
    if found.stuck:
        yield f"  taking more than three times as long as usual: {format_count(len(found.stuck), 'task')}"
    for job in found.stuck[:_MAX_STUCK_LISTED]:
        yield f"    {job.job_id}: {format_duration(job.age_s)} (usually {format_duration(job.median_s)} for {job.model})"
