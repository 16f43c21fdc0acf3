"""The options that several commands share, in groups, and their conversion to `RunOptions`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from runner.api.options import IfLocked, RunOptions
from runner.core.units import DURATION_FORMS, RATE_FORMS, format_duration, parse_duration, parse_rate

DEFAULTS = RunOptions()

SHARE_FORMS = "a number of jobs such as 20, or a share such as 5%"
CLOCK_FORMS = "a local time as HH:MM, such as 06:30"


Callback = Callable[[click.Context, click.Parameter, Any], Any]


def parsed_by(read: Callable[[str], Any]) -> Callback:
    """Make the callback of an option whose text a function reads; its ValueError is a usage error."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(read(text) for text in value)
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def parse_share(text: str) -> int | float:
    """
    Read a number of jobs, or a share of all of them as a number from 0 to 1.

    >>> parse_share("20"), parse_share("5%"), parse_share("0")
    (20, 0.05, 0)

    Raises:
        ValueError: It is neither.
    """
    number, is_share = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) / 100 if is_share else int(number)
    except ValueError:
        value = -1
    if not 0 <= value or (is_share and not value <= 1):
        raise ValueError(f"{text!r} is neither a count nor a share; write {SHARE_FORMS}")
    return value


def parse_clock(text: str) -> time:
    """
    Read a time of day.

    >>> parse_clock("06:30")
    datetime.time(6, 30)

    Raises:
        ValueError: It is none.
    """
    hour, colon, minute = text.partition(":")
    if not colon or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in (hour, minute)):
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}")
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day; write {CLOCK_FORMS}") from None


def seconds_until(clock: time, now: datetime) -> float:
    """
    Count the seconds until this machine's clock shows a time next; now itself is not next.

    A night on which the clocks change is an hour longer or shorter, and counted so.

    >>> seconds_until(time(6, 30), datetime(2026, 11, 21, 22, 0).astimezone())
    30600.0
    """
    for days in (0, 1):
        # Without a zone of its own, a time is taken as the machine's, by the rules of that day.
        then = datetime.combine(now.date() + timedelta(days=days), clock).astimezone()
        if then > now:
            return (then - now).total_seconds()
    raise AssertionError("tomorrow comes after today")


_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_NAME = re.compile(r"[^\s{}]+")


def _read(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx, param)
        variables[name] = value
    return variables


def variable_option(decorated: _Decorated) -> _Decorated:
    """Add the option; the command gets it as ``variables``, a mapping of texts."""
    return click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_read,
        help="Set a variable of the manifest, over its own `vars`. May be given several times.",
    )(decorated)


Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)

PACING = (
    click.option(
        "--submit-rate",
        "submit_per_s",
        metavar="RATE",
        callback=parsed_by(parse_rate),
        help=f"Submissions: {RATE_FORMS}.",
    ),
    click.option(
        "--poll-rate",
        "poll_per_s",
        metavar="RATE",
        callback=parsed_by(parse_rate),
        help="Queries, likewise.",
    ),
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
        callback=parsed_by(parse_share),
        help=f"Stop once more jobs than that failed in this process: {SHARE_FORMS}.",
    ),
    click.option(
        "--max-runtime",
        metavar="DURATION",
        callback=parsed_by(parse_duration),
        help=f"Submit no longer than that: {DURATION_FORMS}. Exit code 6 with work left.",
    ),
    click.option(
        "--stop-at",
        metavar="HH:MM",
        callback=parsed_by(parse_clock),
        help=f"Submit until then, {CLOCK_FORMS}: the next such time. Exit code 6 with work left.",
    ),
    click.option(
        "--drain-time",
        "drain_s",
        metavar="DURATION",
        default=format_duration(DEFAULTS.drain_s),
        show_default=True,
        callback=parsed_by(parse_duration),
        help="How long what was paid for is still waited for after that.",
    ),
    click.option(
        "--if-locked",
        type=click.Choice([choice.value for choice in IfLocked]),
        default=DEFAULTS.if_locked.value,
        show_default=True,
        callback=parsed_by(IfLocked),
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


class DisplayOptions(Struct, frozen=True, kw_only=True):
    """How a person wants to watch a run, see `WATCHING`."""

    as_json: bool
    quiet: bool
    verbose: bool
    log_file: Path | None
    metrics_file: Path | None


def pop_display_options(values: dict[str, Any]) -> DisplayOptions:
    """Take the options of `WATCHING` out of a command's values."""
    wishes = {name: values.pop(name) for name in ("as_json", "quiet", "verbose", "log_file", "metrics_file")}
    if wishes["quiet"] and wishes["verbose"]:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    return DisplayOptions(**wishes)


def run_options(values: dict[str, Any]) -> RunOptions:
    """Make `RunOptions` of what is left of a command's values; they have the names of its fields."""
    if values.get("scenario") is not None and values.get("simulate") is False:
        raise click.UsageError("--scenario says what the simulator plays, and needs --simulate.")
    run_s = earliest_deadline(values.pop("max_runtime"), values.pop("stop_at"))
    return RunOptions(run_s=run_s, **values)


def earliest_deadline(max_runtime_s: float | None, stop_at: Any) -> float | None:
    """Say how long jobs are submitted, where both bounds may be given."""
    bounds = [] if max_runtime_s is None else [max_runtime_s]
    if stop_at is not None:
        bounds.append(seconds_until(stop_at, datetime.now().astimezone()))
    return min(bounds, default=None)
