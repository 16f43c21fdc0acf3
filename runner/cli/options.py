"""The options that several commands share, in groups, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli.values import (
    CLOCK_FORMS,
    SHARE_FORMS,
    parse_clock,
    parse_share,
    read_by,
    seconds_until,
)
from runner.core.units import DURATION_FORMS, RATE_FORMS, parse_duration, parse_rate
from runner.core.value import frozen

if TYPE_CHECKING:
    from runner.api.environment import Overrides
    from runner.api.options import RunOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)

PACING = (
    click.option(
        "--submit-rate", metavar="RATE", callback=read_by(parse_rate), help=f"Submissions: {RATE_FORMS}."
    ),
    click.option("--poll-rate", metavar="RATE", callback=read_by(parse_rate), help="Queries, likewise."),
    click.option("--in-flight", metavar="N", type=_COUNT, help="Remote tasks that exist at once."),
    click.option("--downloads", metavar="N", type=_COUNT, help="Assets that are fetched at once."),
    click.option(
        "--base-url", metavar="URL", help="The gateway; before POWERTOKENS_BASE_URL and the manifest."
    ),
    click.option(
        "--env-file", type=_PATH, help="A file of NAME=VALUE lines; by default .env beside the manifest."
    ),
)
"""How fast, and where."""

BOUNDS = (
    click.option("--limit", metavar="N", type=_COUNT, help="Submit at most N jobs in this process."),
    click.option(
        "--max-failures",
        metavar="N|N%",
        callback=read_by(parse_share),
        help=f"Stop once more jobs than that failed in this process: {SHARE_FORMS}.",
    ),
    click.option(
        "--max-runtime",
        metavar="DURATION",
        callback=read_by(parse_duration),
        help=f"Submit no longer than that: {DURATION_FORMS}. Exit code 6 with work left.",
    ),
    click.option(
        "--stop-at",
        metavar="HH:MM",
        callback=read_by(parse_clock),
        help=f"Submit until then, {CLOCK_FORMS}: the next such time. Exit code 6 with work left.",
    ),
    click.option(
        "--drain-time",
        metavar="DURATION",
        default="10m",
        show_default=True,
        callback=read_by(parse_duration),
        help="How long what was paid for is still waited for after that.",
    ),
    click.option(
        "--if-locked",
        type=click.Choice(["fail", "wait", "skip"]),
        default="fail",
        show_default=True,
        help="Where another process works in the run directory: exit 5, wait for it, or leave it (exit 0).",
    ),
)
"""How long, and when not."""

WATCHING = (
    click.option(
        "--json", "as_json", is_flag=True, help="End with the summary as one line of JSON on stdout."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show only errors and how it ended."),
    click.option("-v", "--verbose", is_flag=True, help="Show every job that ends, and the trace of a bug."),
    click.option(
        "--log-file", type=_PATH, help="Append everything that happens to this file, as JSON lines."
    ),
    click.option("--metrics-file", type=_PATH, help="Write metrics for Prometheus there at the end."),
)
"""What is shown and kept of it."""

SIMULATE = click.option(
    "--simulate",
    is_flag=True,
    help="Rehearse against a simulated gateway: nothing is sent, and nothing costs.",
)
SCENARIO = click.option(
    "--scenario", metavar="NAME|FILE", help="What the simulator plays: a shipped scenario or a file."
)
JOB = click.option(
    "--job", metavar="GLOB", help="Only jobs whose id matches, as the shell matches file names."
)
RETRY_FAILED = click.option(
    "--retry-failed",
    is_flag=True,
    help="Submit failed jobs again, by the same choice as rerun: a new, paid attempt.",
)
"""One option each."""


def with_options(*groups: Any) -> Callable[[Command], Command]:
    """Give a command the options of some groups, in this order."""
    flat = [option for group in groups for option in (group if isinstance(group, tuple) else (group,))]

    def decorate(command: Command) -> Command:
        for option in reversed(flat):
            command = option(command)
        return command

    return decorate


@frozen(kw_only=True)
class Wishes:
    """How a person wants to watch a run, see `WATCHING`; and whether a directory in use is to be left alone."""

    as_json: bool
    quiet: bool
    verbose: bool
    log_file: Path | None
    metrics_file: Path | None
    skip_locked: bool


def take_wishes(values: dict[str, Any]) -> Wishes:
    """Take the options of `WATCHING` out of a command's values."""
    wishes = {name: values.pop(name) for name in ("as_json", "quiet", "verbose", "log_file", "metrics_file")}
    if wishes["quiet"] and wishes["verbose"]:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    return Wishes(**wishes, skip_locked=values["if_locked"] == "skip")


def take_overrides(values: dict[str, Any]) -> Overrides:
    """Take the options of `PACING` out of a command's values."""
    from runner.api.environment import Overrides

    return Overrides(
        base_url=values.pop("base_url"),
        submit_per_s=values.pop("submit_rate"),
        poll_per_s=values.pop("poll_rate"),
        in_flight=values.pop("in_flight"),
        downloads=values.pop("downloads"),
        env_file=values.pop("env_file"),
    )


def take_run_options(values: dict[str, Any], **more: Any) -> RunOptions:
    """Take the options of `PACING` and `BOUNDS`, and what is left, as options of a run."""
    from runner.api.options import IfLocked, RunOptions

    if values.get("scenario") is not None and values.get("simulate") is False:
        raise click.UsageError("--scenario says what the simulator plays, and needs --simulate.")
    overrides = take_overrides(values)
    run_s = shorter(values.pop("max_runtime"), values.pop("stop_at"))
    drain_s = values.pop("drain_time")
    # To leave a locked directory alone is decided where its error arrives.
    if_locked = IfLocked.WAIT if values.pop("if_locked") == "wait" else IfLocked.FAIL
    return RunOptions(
        overrides=overrides, run_s=run_s, drain_s=drain_s, if_locked=if_locked, **values, **more
    )


def shorter(max_runtime_s: float | None, stop_at: Any) -> float | None:
    """Say how long jobs are submitted, where both bounds may be given."""
    bounds = [] if max_runtime_s is None else [max_runtime_s]
    if stop_at is not None:
        from datetime import datetime

        bounds.append(seconds_until(stop_at, datetime.fromtimestamp(time.time()).astimezone()))
    return min(bounds, default=None)
