"""The options that several commands share, in groups."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from runner.api.options import DEFAULT_OPTIONS, IfLocked, next_moment, parse_max_cost, read_shard
from runner.cli.console import echo_stderr
from runner.cli.param_types import FAILURE_CLASS, RUN_DIR, SCENARIO_NAME, STATE, parsed_by
from runner.core.stop import SHARE_FORMS, parse_max_failures
from runner.core.units import DURATION_FORMS, RATE_FORMS, format_duration, parse_duration, parse_rate
from runner.core.where import parse_condition

_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_COUNT_OR_0 = click.IntRange(min=0)

PACING = (
    click.option(
        "--submit-rate",
        "submit_rate",
        metavar="RATE",
        callback=parsed_by(parse_rate),
        help=f"Maximum rate of submissions: {RATE_FORMS}. Forgets what was learned from refusals.",
    ),
    click.option(
        "--poll-rate",
        "poll_rate",
        metavar="RATE",
        callback=parsed_by(parse_rate),
        help="Maximum rate of status queries, such as 10/s.",
    ),
    click.option(
        "--in-flight",
        metavar="N",
        type=_COUNT,
        help="Maximum number of videos that are generated at the same time.",
    ),
    click.option("--downloads", metavar="N", type=_COUNT, help="Maximum number of concurrent downloads."),
    click.option(
        "--base-url",
        metavar="URL",
        help="URL of the gateway; overrides POWERTOKENS_BASE_URL and the manifest.",
    ),
    click.option(
        "--env-file",
        type=_PATH,
        help="File of environment variables as NAME=VALUE lines; by default .env beside the manifest.",
    ),
)
"""Rates, limits and the gateway."""

BOUNDS = (
    click.option(
        "--limit",
        metavar="N",
        type=_COUNT_OR_0,
        help="Submit at most N jobs in this process. The exit code is 6 if jobs are left.",
    ),
    click.option(
        "--max-failures",
        metavar="N|N%|off",
        callback=parsed_by(parse_max_failures),
        help="Stop when more jobs than this ended without a video in this process (failed, undelivered or timed out): "
        f"{SHARE_FORMS}. A percentage is of the jobs that ended, from 20 on. [default: stop after 20 such jobs in a row]",
    ),
    click.option(
        "--max-runtime",
        metavar="DURATION",
        callback=parsed_by(parse_duration),
        help=f"Stop submitting after this time: {DURATION_FORMS}. The exit code is 6 if jobs are left.",
    ),
    click.option(
        "--stop-at",
        metavar="HH:MM",
        callback=parsed_by(next_moment),
        help="Stop submitting at this local time, such as 06:30, today or tomorrow. The exit code is 6 if jobs "
        "are left.",
    ),
    click.option(
        "--max-cost",
        metavar="AMOUNT",
        callback=parsed_by(parse_max_cost),
        help="Spend at most this much in this process, such as 20 or '20 USD'; the highest price of a job counts until it "
        "ends. The exit code is 3 if jobs are left.",
    ),
    click.option(
        "--yes",
        is_flag=True,
        help="Submit without asking, whatever it costs. Without a terminal nothing is asked.",
    ),
    click.option(
        "--drain-time",
        metavar="DURATION",
        type=click.UNPROCESSED,
        default=DEFAULT_OPTIONS.drain_time,
        callback=parsed_by(parse_duration),
        help="How long to wait for submitted jobs after --max-runtime or --stop-at.  "
        f"[default: {format_duration(DEFAULT_OPTIONS.drain_time)}]",
    ),
    click.option(
        "--if-locked",
        type=click.Choice(list(map(str, IfLocked))),
        default=DEFAULT_OPTIONS.if_locked.value,
        show_default=True,
        callback=parsed_by(IfLocked),
        help="If another process uses the run directory: fail with exit code 5, wait for it, or skip the run with "
        "exit code 0.",
    ),
)
"""When to stop, and whether to start."""

WATCHING = (
    click.option(
        "--json", "as_json", is_flag=True, help="Print the summary as one line of JSON to stdout at the end."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show only errors and the final result."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Show every finished job, and the traceback of an internal error.",
    ),
    click.option(
        "--log-file",
        type=_PATH,
        help="Append every event to this file as JSON lines: intents, answers, throttling, news of tasks, downloads, ends.",
    ),
    click.option(
        "--metrics-file",
        type=_PATH,
        help="Write Prometheus metrics to this file every 15 seconds, and at the end of the run.",
    ),
)
"""What to show, and what to write besides the run directory."""


def or_newest_run(ctx: click.Context, _param: click.Parameter | None, given: Any) -> Any:
    """Return the directory or directories of an argument; if none is given, that of the newest run, and say so."""
    if given:
        return _local(ctx, given)
    from runner.api.state_dir import newest_run

    silent: list[Path] = []
    newest = newest_run(Path.cwd(), silent.append)
    if silent:
        others = "" if len(silent) == 1 else f" and {len(silent) - 1:,} more"
        echo_stderr(f"skipped: {silent[0]}{others} (the disk does not answer)", style="yellow")
    if newest is None:
        raise click.UsageError("No run is known here; name a run directory, such as output/kittens.")
    echo_stderr(f"newest run: {newest}")
    return newest if given is None else (newest,)


def local_run(ctx: click.Context, _param: click.Parameter | None, given: Any) -> Any:
    """
    Return the directory of an argument, which may be the URL of a journal.

    Of a run of several shards it is the one of the jobs that are named, if all parameters are known already.
    """
    return _local(ctx, given)


GIVEN_URL = "runner.given_url"
"""The key in a context's `meta` of the URL that a run was named by."""


def as_given(run_dir: Path) -> str | Path:
    """Return how the user named a run that is only read: by the URL of its journal, or by its directory."""
    url: str | None = click.get_current_context().meta.get(GIVEN_URL)
    return url or run_dir


_WORKS_ON_RUNS = ("resume", "rerun", "resolve")
"""Commands that take a journal over, and continue with its run in a directory here; others only read it."""


_WITH_PASSWORD = re.compile(r"[a-z0-9+.-]+:/+[^/@]*:[^/@]*@")


def _local(ctx: click.Context, given: Any) -> Any:
    paths = given if isinstance(given, tuple) else (given,)
    if any(_WITH_PASSWORD.match(path.as_posix()) for path in paths):
        # It is not shown.
        raise click.UsageError(
            "a URL with a user and a password names no run; keys belong into variables such as AWS_*"
        )
    # By its text: commands that get no URL import nothing for it.
    if not any(path.as_posix().startswith(("s3:/", "gs:/", "az:/", "file:/")) for path in paths):
        return given
    from runner.cli.journal_argument import local_paths

    is_read = ctx.info_name not in _WORKS_ON_RUNS
    if isinstance(given, tuple):
        return tuple(local_paths(ctx, paths, is_read=is_read, shard=ctx.params.get("shard")))
    job = ctx.params.get("job")
    jobs = ctx.params.get("jobs") or (() if job is None else (job,))
    return local_paths(ctx, paths, is_read=is_read, jobs=jobs)[0]


RUN_OR_NEWEST = click.argument("run_dir", required=False, type=RUN_DIR, callback=or_newest_run)
"""The argument RUN_DIR; without it, the command works on the run that was worked on last, and says so."""

SIMULATE = click.option(
    "--simulate",
    is_flag=True,
    help="Use a simulated gateway: nothing is sent and nothing is billed.",
)
REAL_TIME = click.option(
    "--real-time",
    is_flag=True,
    help="With --simulate: keep the manifest's rates and waits, which the simulator otherwise replaces by short ones.",
)
PORT = click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
SCENARIO = click.option(
    "--scenario",
    metavar="NAME|FILE",
    type=SCENARIO_NAME,
    help="Scenario of the simulator: demo (every job succeeds), mixed (almost every fault), or a file; see "
    "`runner schema scenario`.",
)
WHERE = click.option(
    "--where",
    metavar="EXPR",
    multiple=True,
    callback=parsed_by(parse_condition),
    help="Only jobs that meet a condition on their fields, metadata or request: split=test, model=wan*, seed>3. "
    "May be given several times.",
)
STATUS = click.option(
    "--status",
    "states",
    type=STATE,
    multiple=True,
    help="Only jobs in this state. May be given several times.",
)
CLASS = click.option(
    "--class",
    "classes",
    type=FAILURE_CLASS,
    multiple=True,
    help="Only jobs with this failure class. May be given several times.",
)
SAMPLE = click.option(
    "--sample",
    metavar="N",
    type=_COUNT,
    help="Only N of the jobs, chosen by their ids: always the same ones, and part of any larger sample.",
)
JOB = click.option("--job", metavar="GLOB", help="Only jobs whose id matches a pattern, such as 'sky-*'.")
ADOPT_RESULTS = click.option(
    "--adopt-results",
    is_flag=True,
    help="If run.db is older than its directory: add what only results.jsonl knows to it, and continue.",
)
VERIFY = click.option(
    "--verify",
    is_flag=True,
    help="Read the files of succeeded jobs, and download those again that are missing or were changed. Costs nothing.",
)
NEW_AND_CATCH_UP = (
    click.option(
        "--new",
        is_flag=True,
        help="Start a new run even if the manifest was run in another directory before.",
    ),
    click.option(
        "--no-catch-up",
        "catch_up",
        flag_value=False,
        type=bool,
        default=True,
        help="Do not download what older runs of a series, such as last night's, paid for.",
    ),
)
"""How a run relates to other runs of its manifest."""
SHARD = click.option(
    "--shard",
    metavar="I/N|auto",
    callback=parsed_by(read_shard),
    is_eager=True,
    help="Only this shard: I from 0 to N - 1, or auto, from the variables of the scheduler.",
)
ASSETS = (
    click.option(
        "--assets",
        metavar="URL",
        help="Upload each video to a store before its job counts as succeeded: s3://, gs:// or az://BUCKET/PREFIX, or "
        "file:///FOLDER. The run keeps to it.",
    ),
    click.option(
        "--keep-local", is_flag=True, help="With --assets: keep the files in the run directory as well."
    ),
)
"""Where videos are kept."""
PER_SHARD = click.option(
    "--per-shard",
    is_flag=True,
    help="--limit, --max-failures, --max-cost and the budgets of a day and a month are meant for each shard alone, which has "
    "its part of the run's budget.",
)
RETRY_FAILED = click.option(
    "--retry-failed",
    is_flag=True,
    help="Also submit failed jobs again, as `rerun` does; every submission is paid for.",
)
TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Start the commands and call the webhooks that the run directory names, even if the manifest on this machine "
    "does not.",
)
"""Single options."""


class DisplayOptions(Struct, frozen=True, kw_only=True):
    """The values of `WATCHING`."""

    as_json: bool
    quiet: bool
    verbose: bool
    log_file: Path | None
    metrics_file: Path | None


def pop_display_options(values: dict[str, Any]) -> DisplayOptions:
    """Remove the options of `WATCHING` from a command's values, and return them; the rest are fields of `RunOptions`."""
    given = {name: values.pop(name) for name in ("as_json", "quiet", "verbose", "log_file", "metrics_file")}
    if given["quiet"] and given["verbose"]:
        raise click.UsageError("--quiet and --verbose can't be used together.")
    return DisplayOptions(**given)
