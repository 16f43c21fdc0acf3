"""What is printed when a run ends: counts, the most frequent failures, and one command to continue with, in 15 lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from runner.cli.console import echo_stderr
from runner.cli.displays import BY_SIGNAL, COLORS, counts_text, ended_count
from runner.core.advice import advice
from runner.core.lifecycle import UNFINISHED, State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.sanitize import command_text, job_command, sanitize_line
from runner.core.stop import Stop
from runner.core.summary import takes_text
from runner.core.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from runner.api.budget import Repeat
    from runner.api.options import RunOptions
    from runner.api.run_result import RunResult

_WIDTH_OF_FILES = 160
"""Columns where there is no terminal."""
_MAX_PROSE_WIDTH = 100
_MAX_CLASSES = 3
_MAX_WRAPPED = 3
_MAYBE_CHARGED = "the gateway may have accepted the submission and charged for it"

_Line = tuple[str, str | None]
"""A line and its color."""


def show_summary(result: RunResult, options: RunOptions, *, quiet: bool = False) -> None:
    """
    Print how a run ended; the last line is the command to continue with.

    Args:
        options: Of the run; those that the command to continue with needs too are repeated.
        quiet: Whether to print five lines at most.
    """
    if result.did_nothing and not result.exit_code:
        echo_stderr(f"{result.name}: nothing to do, {_why_nothing(result)}")
        return
    stops = [(f"stopped[{stop.reason}]:", f" {_stop_text(stop, result)}") for stop in result.stops]
    if quiet and stops:
        (head, text), *others = stops
        stops = [(head, text + "".join(f"; {head}{text}" for head, text in others))]
    for (head, text), stop in zip(stops, result.stops, strict=False):
        echo_stderr(text, head=head, head_style="yellow")
        if not quiet and stop.hint and stop.reason not in BY_SIGNAL:
            echo_stderr(f"  hint: {stop.hint}")
    for line, color in (_brief if quiet else _body)(result):
        echo_stderr(line, style=color)
    for line, color in _unsaved(result):
        echo_stderr(line, style=color)
    if result.exit_code or not quiet:
        for line in _next_lines(result, options, is_brief=quiet):
            echo_stderr(line)


def _why_nothing(result: RunResult) -> str:
    if result.matches is not None:
        matching = format_count(result.matches.jobs, "matching job")
        return f"{matching} succeeded; other jobs that are pending: {result.matches.others_pending:,}"
    jobs = sum(result.counts.values())
    if not jobs:
        return "the run has no jobs"
    return "the job succeeded" if jobs == 1 else f"all {jobs:,} jobs succeeded"


def _stop_text(stop: Stop, result: RunResult) -> str:
    if stop.reason not in BY_SIGNAL:
        return sanitize_line(stop.message, max_chars=2 * _width() - len(stop.reason) - 12)
    counts = result.counts
    running = f", {counts[State.SUBMITTED]:,} still running remotely" if counts[State.SUBMITTED] else ""
    return f"{ended_count(counts):,} of {sum(counts.values()):,} jobs finished{running}"


def _headline(result: RunResult) -> _Line:
    counts = result.counts
    text = f"{result.name}: {counts[State.SUCCEEDED]:,} of {sum(counts.values()):,} jobs succeeded"
    if not result.did_nothing:
        text += "" if result.summary is None else f", {format_size(result.summary.asset_bytes)}"
        text += f" in {format_duration(round(result.worked_s))}"
    return text, "yellow" if result.exit_code else "green"


def _brief(result: RunResult) -> Iterator[_Line]:
    headline, color = _headline(result)
    unfinished = _counts_text(result, UNFINISHED)
    yield headline + (f"; unfinished: {unfinished}" if unfinished else ""), color
    classes = _classes(result)
    if classes:
        names = ", ".join(f"{result.by_class.get(cls, 0):,} {cls}" for _, cls, _ in classes[:_MAX_CLASSES])
        others = ", ..." if len(classes) > _MAX_CLASSES else ""
        yield f"  {result.counts[State.FAILED]:,} failed; by class: {names}{others}", COLORS[State.FAILED]
    if uncertain := result.counts[State.UNCERTAIN]:
        yield f"  {uncertain:,} uncertain: {_MAYBE_CHARGED}", COLORS[State.UNCERTAIN]


def _body(result: RunResult) -> Iterator[_Line]:
    yield _headline(result)
    if counts := _counts_text(result, frozenset(State) - {State.SUCCEEDED, State.UNCERTAIN}):
        yield f"  {counts}", None
    if result.summary is not None and (waiting := result.summary.awaiting_take):
        yield f"  {takes_text(waiting)}", None
    elif result.summary is not None and (rejected := result.summary.rejected):
        again = command_text("runner", "rerun", result.run_dir, "--verdict", "reject")
        yield f"  {rejected:,} rejected by checks; for new, paid takes: {again}", "yellow"
    yield from _failures(result)
    yield from _uncertain(result)
    if spend := "; ".join(map(str, () if result.summary is None else result.summary.cost.spend)):
        yield f"  {spend}{' (simulated)' if result.is_simulated else ''}", None
    if result.run_dir.exists():
        yield f"files    {result.run_dir}/ ({', '.join(_files(result))})", None
    if result.asset_store is not None:
        yield f"videos   {result.asset_store}", None


def _counts_text(result: RunResult, states: frozenset[State]) -> str:
    return counts_text({state: count for state, count in result.counts.items() if state in states})


def _classes(result: RunResult) -> list[tuple[JobRecord, FailureClass, Failure]]:
    """List what jobs failed of, the most frequent first, each with its first job."""
    found = [
        (record, record.error.cls, record.error)
        for record in result.examples
        if record.error is not None and record.state is not State.UNCERTAIN
    ]
    return sorted(found, key=lambda each: -result.by_class.get(each[1], 0))


def _failures(result: RunResult) -> Iterator[_Line]:
    """Give each of the most frequent classes a line; with one class there is space for all of its text."""
    classes = _classes(result)
    is_only = len(classes) == 1
    for record, cls, error in classes[:_MAX_CLASSES]:
        details = f" ({sanitize_line(error.details, max_chars=80)})" if error.details else ""
        job_id = sanitize_line(record.job_id, max_chars=60)
        text = f"{result.by_class.get(cls, 0):,} {cls}, for example {job_id}: {error.message}{details}"
        if is_only:
            yield from _wrapped(sanitize_line(text, max_chars=600), "  ", COLORS[State.FAILED])
            yield from _wrapped(advice(cls, is_given_up=record.state is State.FAILED), "    ", None)
        else:
            yield f"  {sanitize_line(text, max_chars=_width() - 2)}", COLORS[State.FAILED]
    if others := classes[_MAX_CLASSES:]:
        jobs = sum(result.by_class.get(cls, 0) for _, cls, _ in others)
        status = command_text("runner", "status", result.run_dir)
        classes_left = "another class" if len(others) == 1 else f"{len(others)} other classes"
        yield f"  {jobs:,} more of {classes_left}: {status}", None


def _uncertain(result: RunResult) -> Iterator[_Line]:
    if not (uncertain := result.counts[State.UNCERTAIN]):
        return
    color = COLORS[State.UNCERTAIN]
    if _is_resumable(result):
        yield f"  {uncertain:,} uncertain, perhaps charged; settle with: {_resolve(result)}", color
        return
    yield f"  {uncertain:,} uncertain: {_MAYBE_CHARGED}", color
    if uncertain == 1:
        yield f"    {sanitize_line(submission_text(result.uncertain[0]), max_chars=_width() - 4)}", None


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
    yield (
        "the ids of these tasks could not be written to disk, and the tasks are paid for; keep this list",
        "red",
    )
    for job_id, task_id in result.unsaved:
        yield f"    {job_command('resolve', result.run_dir, job_id, '--task-id', task_id)}", None


def _files(result: RunResult) -> Iterator[str]:
    yield from ("results.jsonl", "report.html")
    if result.counts[State.SUCCEEDED] and result.asset_store is None:
        yield "assets/"
    if (result.run_dir / "failed.yaml").exists():
        yield "failed.yaml"


def _is_resumable(result: RunResult) -> bool:
    return any(result.counts[state] for state in UNFINISHED)


def _resolve(result: RunResult) -> str:
    return command_text("runner", "resolve", result.run_dir)


def _next_lines(result: RunResult, options: RunOptions, *, is_brief: bool) -> Iterator[str]:
    """Yield the one command to continue with, last, and what it does: beside it, or above if there is no space."""
    command, what = _next_command(result, options)
    if not command or not result.run_dir.exists():
        return
    start = "  next: " if is_brief else "next     "
    line = f"{start}{command}   # {what}"
    if is_brief or len(line) <= _width():
        yield line
    else:
        yield f"{start}{what}:"
        yield f"  {command}"


def _next_command(result: RunResult, given: RunOptions) -> tuple[str, str]:
    """Return the command to continue with, and what it does: first what is free, then what a person has to decide."""
    run_dir, counts = result.run_dir, result.counts
    options: tuple[str, ...] = () if given.scenario is None else ("--scenario", given.scenario)
    options += () if given.env_file is None else ("--env-file", str(given.env_file))
    options += ("--base-url", result.gateway) if result.needs_base_url else ()
    if _is_resumable(result):
        unfinished = sum(counts[state] for state in UNFINISHED - {State.PENDING})
        free = f"polls or downloads {unfinished:,}" if unfinished else ""
        what = ", ".join(filter(None, (_submits(result.resume), free))) or "continues"
        what += "" if result.resume.jobs else ", free"
        restriction = _restriction(given) if result.resume.is_restricted else ()
        return command_text("runner", "resume", run_dir, *restriction, *options), what
    if counts[State.UNCERTAIN]:
        return _resolve(result), "lists them, and what to do, free"
    if result.rerun.jobs:
        again = _submits(result.rerun)
        return command_text("runner", "rerun", run_dir, *options), f"{again}, as new attempts"
    if counts[State.FAILED]:
        jobs = command_text("runner", "jobs", run_dir, "--status", "failed")
        return jobs, "why each failed, free"
    if counts[State.SUCCEEDED] and not result.exit_code:
        return command_text("runner", "report", run_dir, "--open"), "shows the videos, free"
    return "", ""


def _restriction(given: RunOptions) -> Iterator[str]:
    """Yield the options that restricted a run to some of its jobs."""
    if given.job is not None:
        yield from ("--job", given.job)
    for condition in given.where:
        yield from ("--where", f"{condition.name}{condition.operator}{condition.value}")
    if given.sample is not None:
        yield from ("--sample", str(given.sample))


def _submits(repeat: Repeat) -> str:
    """Return how much a command would submit; empty if nothing."""
    if not repeat.jobs:
        return ""
    cost = repeat.cost
    if cost is None or not cost.sums:
        price = ", of unknown price" if cost is not None else ""
    else:
        price = f", at most {cost}"
    return f"submits {format_count(repeat.jobs, 'job')}{price}"


def _wrapped(text: str, indent: str, color: str | None) -> Iterator[_Line]:
    width = min(_width(), _MAX_PROSE_WIDTH)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
        max_lines=_MAX_WRAPPED,
        placeholder=" ...",
    )
    for line in lines:
        yield line, color


def _width() -> int:
    return max(40, get_terminal_size(fallback=(_WIDTH_OF_FILES, 24)).columns - 1)
