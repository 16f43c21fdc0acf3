"""What is printed when a run ends: counts, failures with what to do about them, and the commands to continue."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from runner.cli.console import command_text, echo_stderr
from runner.cli.displays import COLORS, STATES, ended_count
from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import Failure, JobRecord
from runner.core.sanitize import sanitize_line
from runner.core.stop import StopReason
from runner.core.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from runner.api.budget import Repeat
    from runner.api.execute import RunResult

_MAX_WIDTH = 100
_MAX_UNCERTAIN_LISTED = 5
_BY_SIGNAL = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})
_RESUMABLE = frozenset(
    {State.PENDING, State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED}
)

_Line = tuple[str, str | None]
"""A line and its color."""


def show_summary(result: RunResult, *, scenario: str | None = None, quiet: bool = False) -> None:
    """
    Print how a run ended.

    Args:
        scenario: The simulator's scenario, for the command that continues a simulated run.
        quiet: Whether to print only the reason of an early stop and the number of succeeded jobs.
    """
    if result.did_nothing and not result.exit_code:
        echo_stderr(f"{result.name}: nothing to do, {_why_nothing(result)}")
        return
    options: tuple[str, ...] = () if scenario is None else ("--scenario", scenario)
    options += ("--base-url", result.gateway) if result.needs_base_url else ()
    resume = command_text("runner", "resume", result.run_dir, *options)
    _print_headline(result, resume)
    if quiet:
        if unfinished := sum(result.counts[state] for state in _RESUMABLE):
            echo_stderr(f"  {unfinished:,} unfinished: {resume}", style="yellow")
        return
    for line, color in _body(result, resume, command_text("runner", "rerun", result.run_dir, *options)):
        echo_stderr(line, style=color)


def _why_nothing(result: RunResult) -> str:
    if result.matches is not None:
        matching = format_count(result.matches.jobs, "matching job")
        return f"{matching} succeeded; other jobs that are pending: {result.matches.others_pending:,}"
    jobs = sum(result.counts.values())
    if not jobs:
        return "the run has no jobs"
    return "the job succeeded" if jobs == 1 else f"all {jobs:,} jobs succeeded"


def _print_headline(result: RunResult, resume: str) -> None:
    counts = result.counts
    jobs = sum(counts.values())
    for stop in result.stops:
        stopped = partial(echo_stderr, head=f"stopped[{stop.reason}]:", head_style="yellow")
        if stop.reason in _BY_SIGNAL:
            running = (
                f", {counts[State.SUBMITTED]:,} still running remotely" if counts[State.SUBMITTED] else ""
            )
            stopped(f" {ended_count(counts):,} of {jobs:,} jobs finished{running}")
            echo_stderr(f"  hint: {resume}   # continues without paying for any job twice")
            if result.resume.jobs:
                echo_stderr(f"  it {_submits(result.resume).strip(' #')}")
            continue
        stopped(f" {sanitize_line(stop.message, max_chars=500)}")
        if stop.hint:
            echo_stderr(f"  hint: {stop.hint}")
    text = f"{result.name}: {counts[State.SUCCEEDED]:,} of {jobs:,} jobs succeeded"
    echo_stderr(text + _size_and_time(result), style="yellow" if result.exit_code else "green")
    for spend in () if result.summary is None else result.summary.cost.spend:
        echo_stderr(f"  {spend}")


def _size_and_time(result: RunResult) -> str:
    if result.did_nothing:
        return ""
    size = "" if result.summary is None else f", {format_size(result.summary.asset_bytes)}"
    return f"{size} in {format_duration(round(result.worked_s))}"


def _body(result: RunResult, resume: str, rerun: str) -> Iterator[_Line]:
    for state in STATES:
        if (count := result.counts[state]) and state is not State.SUCCEEDED:
            yield f"  {count:>7,} {state.label}", COLORS.get(state)
    for record in result.examples:
        if record.error is not None and record.state is not State.UNCERTAIN:
            yield from _failure(result, record, record.error)
    yield from _uncertain(result)
    yield from _unsaved(result)
    yield "", None
    yield from _files(result)
    has_resume_hint = any(stop.reason in _BY_SIGNAL for stop in result.stops)
    if not has_resume_hint and any(result.counts[state] for state in _RESUMABLE):
        yield f"resume   {resume}{_submits(result.resume)}", None
    if result.counts[State.FAILED]:
        yield f"rerun    {rerun}{_submits(result.rerun)}", None


def _submits(repeat: Repeat) -> str:
    """Return how much a command would submit, as a comment after it; empty if nothing."""
    if not repeat.jobs:
        return ""
    cost = repeat.cost
    if cost is None or not cost.sums:
        price = ", of unknown price" if cost is not None else ""
    else:
        price = f", at most {cost}"
    return f"   # submits {format_count(repeat.jobs, 'job')}{price}"


def _failure(result: RunResult, record: JobRecord, error: Failure) -> Iterator[_Line]:
    job_id, message = (sanitize_line(text, max_chars=240) for text in (record.job_id, error.message))
    details = f" ({sanitize_line(error.details, max_chars=80)})" if error.details else ""
    count = result.by_class.get(error.cls, 0)
    yield "", None
    yield from _wrapped(f"{count:,} {error.cls}, for example {job_id}: {message}{details}", "", "red")
    yield from _wrapped(advice(error.cls, is_given_up=record.state is State.FAILED), "  ", None)


def _uncertain(result: RunResult) -> Iterator[_Line]:
    if not (count := result.counts[State.UNCERTAIN]):
        return
    yield "", None
    yield f"{count:,} uncertain: the gateway may have accepted the submission and charged for it", "yellow"
    for record in result.uncertain[:_MAX_UNCERTAIN_LISTED]:
        yield f"  {sanitize_line(submission_text(record), max_chars=_width() - 2)}", None
    if count > _MAX_UNCERTAIN_LISTED:
        yield (
            f"  and {count - _MAX_UNCERTAIN_LISTED:,} more: {command_text('runner', 'resolve', result.run_dir)}",
            None,
        )
    job = result.uncertain[0].job_id if count == 1 else "JOB"
    which = "it" if count == 1 else "each of them"
    yield f"  look for {which} in your account, then run one of", None
    for option, explanation in (
        (("--task-id", "TASK_ID"), "a task exists: poll it and download its video"),
        (("--not-submitted",), "no task exists: submit the job again"),
        (("--give-up",), "mark the job as failed"),
    ):
        yield f"    {command_text('runner', 'resolve', result.run_dir, job, *option)}   # {explanation}", None


def submission_text(record: JobRecord) -> str:
    """Describe the last submission of a job, so that its task can be found in the account."""
    attempt = record.attempts[-1] if record.attempts else None
    at, key = (None, None) if attempt is None else (attempt.submitted_at, attempt.key)
    sent = "" if at is None else f" sent {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    with_key = "" if key is None else f" with key {key}"
    prompt = sanitize_line(str(record.request.get("prompt") or ""), max_chars=60)
    return f"{record.job_id}{sent}{with_key}{f', {prompt!r}' if prompt else ''}"


def _unsaved(result: RunResult) -> Iterator[_Line]:
    if not result.unsaved:
        return
    yield "", None
    yield (
        "the ids of these tasks could not be written to disk, and the tasks are paid for; keep this list",
        "red",
    )
    for job_id, task_id in result.unsaved:
        yield f"    {command_text('runner', 'resolve', result.run_dir, job_id, '--task-id', task_id)}", None


def _files(result: RunResult) -> Iterator[_Line]:
    names = ["results.jsonl", "report.html"]
    names += ["assets/"] if result.counts[State.SUCCEEDED] else []
    names += ["failed.yaml"] if (result.run_dir / "failed.yaml").exists() else []
    yield f"files    {result.run_dir}/ ({', '.join(names)})", None


def _wrapped(text: str, indent: str, color: str | None) -> Iterator[_Line]:
    for line in textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False
    ):
        yield line, color


def _width() -> int:
    return max(20, min(_MAX_WIDTH, get_terminal_size().columns - 1))
