"""How a run ended, on one screen: what there is, what is missing and why, and the commands that go on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from runner.cli.console import COLOURS, LABELS, at_rest, echo_stderr, shell
from runner.core.advice import advice
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.core.sanitize import sanitize_line
from runner.core.stop import StopReason
from runner.core.units import format_duration, format_size

if TYPE_CHECKING:
    from runner.api.execute import RunResult

WIDEST = 100
MOST_UNCERTAIN = 5
_BY_SIGNAL = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})
_TO_GO_ON = frozenset({State.PENDING, State.SUBMITTED, State.DOWNLOADING, State.TIMED_OUT, State.UNDELIVERED})


def show_summary(outcome: RunResult, *, scenario: str | None = None, quiet: bool = False) -> None:
    """
    Show how a run ended.

    Args:
        scenario: What the simulator played, for the command that goes on with a simulated run.
        quiet: Whether to leave out what only helps.
    """
    if outcome.did_nothing and not outcome.exit_code:
        echo_stderr(f"{outcome.name}: nothing to do, {_all(outcome)}")
        return
    more = () if scenario is None else ("--scenario", scenario)
    go_on = shell("runner", "resume", outcome.run_dir, *more)
    _headline(outcome, go_on)
    if quiet:
        return
    for line, colour in _body(outcome, go_on, shell("runner", "rerun", outcome.run_dir, *more)):
        echo_stderr(line, style=colour)


def _all(outcome: RunResult) -> str:
    jobs = sum(outcome.counts.values())
    return (
        "there are no jobs"
        if not jobs
        else f"all {jobs:,} jobs succeeded"
        if jobs > 1
        else "the job succeeded"
    )


def _headline(outcome: RunResult, go_on: str) -> None:
    counts = outcome.counts
    jobs, good = sum(counts.values()), counts[State.SUCCEEDED]
    for stop in outcome.stops:
        head = click.style(f"stopped[{stop.reason}]:", fg="yellow", bold=True)
        if stop.reason in _BY_SIGNAL:
            rendering = (
                f", {counts[State.SUBMITTED]:,} still rendering remotely" if counts[State.SUBMITTED] else ""
            )
            echo_stderr(f"{head} {at_rest(counts):,} of {jobs:,} jobs finished{rendering}")
            echo_stderr(f"  hint: {go_on}   # goes on, and pays for nothing twice")
            continue
        echo_stderr(f"{head} {sanitize_line(stop.message, max_chars=500)}")
        if stop.hint:
            echo_stderr(f"  hint: {stop.hint}")
    text = f"{outcome.name}: {good:,} of {jobs:,} jobs succeeded"
    echo_stderr(text + _in_time(outcome), style="green" if not outcome.exit_code else "yellow")


def _in_time(outcome: RunResult) -> str:
    size = "" if outcome.summary is None else f", {format_size(outcome.summary.asset_bytes)}"
    return "" if outcome.did_nothing else f"{size} in {format_duration(round(outcome.worked_s))}"


def _body(outcome: RunResult, go_on: str, rerun: str) -> Iterator[tuple[str, str | None]]:
    for state, label in LABELS.items():
        if (count := outcome.counts[state]) and state is not State.SUCCEEDED:
            yield f"  {count:>7,} {label}", COLOURS.get(state)
    for record in outcome.examples:
        if record.error is not None and record.state is not State.UNCERTAIN:
            yield from _example(outcome, record, record.error.cls)
    yield from _in_doubt(outcome)
    yield from _unsaved(outcome)
    yield "", None
    yield from _files(outcome)
    is_said = any(stop.reason in _BY_SIGNAL for stop in outcome.stops)
    if not is_said and any(outcome.counts[state] for state in _TO_GO_ON):
        yield f"go on    {go_on}", None
    if outcome.counts[State.FAILED]:
        yield f"rerun    {rerun}", None


def _example(outcome: RunResult, record: JobRecord, cls: FailureClass) -> Iterator[tuple[str, str | None]]:
    assert record.error is not None
    many = f"{outcome.by_class.get(cls, 0):,} {cls}"
    yield "", None
    yield from _wrapped(
        f"{many}, such as {sanitize_line(record.job_id, max_chars=100)}: {_why(record)}", "", "red"
    )
    yield from _wrapped(advice(cls), "  ", None)


def _why(record: JobRecord) -> str:
    assert record.error is not None
    known = ", ".join(
        filter(
            None, (record.error.code, f"HTTP {record.error.http_status}" if record.error.http_status else "")
        )
    )
    return sanitize_line(record.error.message, max_chars=240) + (
        f" ({sanitize_line(known, max_chars=80)})" if known else ""
    )


def _in_doubt(outcome: RunResult) -> Iterator[tuple[str, str | None]]:
    if not (count := outcome.counts[State.UNCERTAIN]):
        return
    yield "", None
    yield f"{count:,} in doubt: a task may have been made and paid for, and no answer says so", "yellow"
    for record in outcome.uncertain[:MOST_UNCERTAIN]:
        yield f"  {sanitize_line(_known(record), max_chars=_width() - 2)}", None
    if count > MOST_UNCERTAIN:
        yield f"  and {count - MOST_UNCERTAIN:,} more: {shell('runner', 'status', outcome.run_dir)}", None
    job = outcome.uncertain[0].job_id if count == 1 else "JOB"
    yield "  look for them in the account; then, for each", None
    for choice, why in (
        (("--task-id", "TASK_ID"), "there is a task: go on with it"),
        (("--not-submitted",), "there is none: submit it again"),
        (("--give-up",), "let it be"),
    ):
        yield f"    {shell('runner', 'resolve', outcome.run_dir, job, *choice)}   # {why}", None


def _known(record: JobRecord) -> str:
    attempt = record.attempts[-1] if record.attempts else None
    at, key = (None, None) if attempt is None else (attempt.submitted_at, attempt.key)
    when = "" if at is None else f" sent {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    by = "" if key is None else f" with key {key}"
    prompt = sanitize_line(str(record.request.get("prompt") or ""), max_chars=60)
    return f"{record.job_id}{when}{by}{f', {prompt!r}' if prompt else ''}"


def _unsaved(outcome: RunResult) -> Iterator[tuple[str, str | None]]:
    if not outcome.unsaved:
        return
    yield "", None
    yield "these tasks were paid for and could not be written down; keep this list", "red"
    for job_id, task_id in outcome.unsaved:
        yield f"    {shell('runner', 'resolve', outcome.run_dir, job_id, '--task-id', task_id)}", None


def _files(outcome: RunResult) -> Iterator[tuple[str, str | None]]:
    names = ["results.jsonl", "report.html"]
    names += ["assets/"] if outcome.counts[State.SUCCEEDED] else []
    names += ["failed.yaml"] if (outcome.run_dir / "failed.yaml").exists() else []
    yield f"files    {outcome.run_dir}/ ({', '.join(names)})", None


def _wrapped(text: str, indent: str, colour: str | None) -> Iterator[tuple[str, str | None]]:
    for line in textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False
    ):
        yield line, colour


def _width() -> int:
    return max(20, min(WIDEST, get_terminal_size().columns - 1))
