"""Speaking to people: errors, warnings and colour on stderr. Data goes to stdout, and nothing here writes there."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import click

from runner.core.lifecycle import State
from runner.core.problem import Problem
from runner.core.sanitize import redact, sanitize_line, sanitize_text
from runner.core.units import format_duration, format_rate
from runner.engine.events import JobEnded, RunEvent, Snapshot
from runner.errors import RunnerError


def wants_color(stream: TextIO | None = None) -> bool:
    """Follow NO_COLOR and FORCE_COLOR, and else whether the stream (stderr) is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream or sys.stderr).isatty()


def echo_stderr(text: str, *, style: str | None = None) -> None:
    """Write a line for people."""
    click.echo(click.style(text, fg=style) if style else text, err=True, color=wants_color())


def echo_stdout(text: str) -> None:
    """Print a line of data to stdout; control characters in it are shown as pictures."""
    click.echo(sanitize_text(text, max_chars=len(text)))


def show_error(error: RunnerError) -> None:
    """
    Show an error: what happened, where, and what to do next.

    >>> from runner.errors import RunLocked
    >>> str(RunLocked("output/kittens is in use by pid 8812", hint="wait for it"))
    'output/kittens is in use by pid 8812'
    """
    head = click.style(f"error[{error.reference}]:", fg="red", bold=True)
    click.echo(f"{head} {error.message}", err=True, color=wants_color())
    for problem in error.problems:
        show_problem(problem)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def show_problem(problem: Problem) -> None:
    """Show what is wrong with a manifest, and where."""
    click.echo(f"  {problem}", err=True)


LABELS: Mapping[State, str] = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.UNCERTAIN: "in doubt",
    State.TIMED_OUT: "timed out",
    State.UNDELIVERED: "undelivered",
    State.PENDING: "pending",
    State.SUBMITTING: "submitting",
    State.SUBMITTED: "in flight",
    State.DOWNLOADING: "downloading",
}
"""What people call the states, those at rest first."""

COLOURS: Mapping[State, str] = {
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.UNCERTAIN: "yellow",
    State.TIMED_OUT: "yellow",
    State.UNDELIVERED: "yellow",
}

_LONGEST = 300


def event_line(event: RunEvent) -> str:
    """Put an event into one safe line."""
    if isinstance(event, JobEnded):
        line = f"{event.job_id}: {LABELS[event.state]}"
        if event.error is not None and event.state is not State.SUCCEEDED:
            line += f" ({event.error.cls}): {event.error.message}"
        return sanitize_line(line, max_chars=_LONGEST)
    line = event.message if event.hint is None else f"{event.message} ({event.hint})"
    return sanitize_line(line, max_chars=_LONGEST)


def counts_text(counts: Mapping[State, int]) -> str:
    """
    Name the states that have jobs.

    >>> counts_text({State.SUCCEEDED: 1200, State.FAILED: 0, State.PENDING: 3})
    '1,200 succeeded, 3 pending'
    """
    return ", ".join(f"{counts[state]:,} {label}" for state, label in LABELS.items() if counts.get(state))


def rate_text(snapshot: Snapshot) -> str:
    """Put the rate that is reached beside the one that is allowed, and say what holds it back."""
    if snapshot.is_stopping:
        return "submitting no more"
    if not snapshot.counts[State.PENDING]:
        return "everything is submitted"
    reached, allowed = (_rate(per_s) for per_s in (snapshot.accepted_per_s, snapshot.submit_per_s))
    held = f", held by: {snapshot.limited_by}" if snapshot.limited_by else ""
    return f"submitting {reached} of {allowed}{held}"


def left_text(snapshot: Snapshot) -> str:
    """Say how long it still takes; empty where nothing is known."""
    if not snapshot.seconds_left:
        return ""
    return f"about {format_duration(max(1.0, snapshot.seconds_left))} left"


def at_rest(counts: Mapping[State, int]) -> int:
    """Count the jobs that this process is through with."""
    return sum(count for state, count in counts.items() if state.has_ended)


def shell(*words: str | Path) -> str:
    """
    Write a command that can be pasted.

    >>> shell("runner", "resume", Path("output/my run"))
    "runner resume 'output/my run'"
    """
    return shlex.join(str(word) for word in words)


def _rate(per_s: float) -> str:
    return format_rate(per_s) if per_s > 0 else "0/s"


EXIT_CODE = 3


def show_bug(error: Exception, arguments: Sequence[str]) -> int:
    """
    Say that it was our fault, keep the trace in a file, and show it where ``-v`` asks for it.

    Returns:
        The exit code.
    """
    trace = redact("".join(traceback.format_exception(error)))
    if {"-v", "--verbose"} & set(arguments):
        echo_stderr(trace)
    echo_stderr(
        f"error[bug]: a bug in runner: {type(error).__name__}: {sanitize_line(str(error), max_chars=200)}"
    )
    place = _write(trace)
    if place is not None:
        echo_stderr(f"  note: its trace is in {place}")
    echo_stderr(
        "  hint: report it with that file; what was submitted is on disk, and the same command goes on"
    )
    return EXIT_CODE


def _write(trace: str) -> str | None:
    try:
        number, path = tempfile.mkstemp(prefix="runner-bug-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return None
    return path
