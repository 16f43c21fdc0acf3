"""`runner status`: how a run stands, to stdout; also while it is going."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from runner.cli.console import echo_stdout
from runner.cli.param_types import RUN_DIR
from runner.core.lifecycle import State

if TYPE_CHECKING:
    from runner.api.status import Status

WATCH_S = 2.0
_MOST_SHOWN = 10


@click.command("status")
@click.argument("run_dir", type=RUN_DIR)
@click.option("--json", "as_json", is_flag=True, help="Write JSON; with --watch a line each time.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until no process is at work.")
def command(run_dir: Path, as_json: bool, watch: bool) -> None:
    """Say how the run in RUN_DIR stands: counts, rates, time left, what binds, what is stuck."""
    from runner.api.status import status

    drawn = 0
    try:
        while True:
            found = status(run_dir, now_at=time.time())
            if as_json:
                click.echo(json.dumps(_json(found)))
            else:
                drawn = _draw(list(_lines(found)), over=drawn if sys.stdout.isatty() else 0)
            if not watch or found.holder is None:
                return
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        # Who stops looking has interrupted nothing.
        return


def _draw(lines: list[str], *, over: int) -> int:
    if over:
        click.echo(f"\x1b[{over}A\x1b[J", nl=False)
    for line in lines:
        echo_stdout(line)
    return len(lines)


def _json(found: Status) -> dict[str, object]:
    from runner.results.formats import utc_text

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
        "first_submitted_at": utc_text(found.first_submitted_at),
        "last_finished_at": utc_text(found.last_finished_at),
    }


def _lines(found: Status) -> Iterator[str]:
    yield f"{found.run_dir}: {found.jobs:,} {'job' if found.jobs == 1 else 'jobs'}, {_at_work(found)}"
    for state, count in found.by_state.items():
        if count:
            yield f"  {count:>9,}  {state.replace('_', ' ')}"
    for cls, count in found.by_class.items():
        yield f"  {count:>9,}  of them {cls}"
    if found.holder is not None:
        yield from _pace(found)
    if found.by_state[State.UNCERTAIN]:
        yield f"in doubt: runner resolve {found.run_dir} JOB..., after a look at the account"
    if found.holder is None and found.left:
        yield f"to go on: runner resume {found.run_dir}"


def _at_work(found: Status) -> str:
    if found.holder is not None:
        return f"{found.holder} is at work"
    return "no process is at work" if found.left else "nothing is left to do"


def _pace(found: Status) -> Iterator[str]:
    from runner.core.units import format_duration, format_rate

    def rate(per_s: float) -> str:
        return format_rate(per_s) if per_s else "0/min"

    yield f"  {rate(found.submitted_per_s)} submitted, {rate(found.finished_per_s)} ended (last 10 minutes)"
    left = "not known yet" if found.seconds_left is None else format_duration(found.seconds_left)
    yield f"  time left: {left}" + (f"; bound by {found.limited_by}" if found.limited_by else "")
    if found.stuck:
        yield f"  {len(found.stuck)} taking over three times as long as usual:"
    for job in found.stuck[:_MOST_SHOWN]:
        usual = format_duration(job.median_s)
        yield f"    {job.job_id}: {format_duration(job.age_s)}, where {job.model} usually takes {usual}"
