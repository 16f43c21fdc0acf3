"""Output to the terminal: messages and errors for people to stderr, data to stdout."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from runner.core.problem import Problem
from runner.core.sanitize import redact, sanitize_line, sanitize_text
from runner.errors import RunnerError

_BUG_EXIT_CODE = 3


def wants_color(stream: TextIO | None = None) -> bool:
    """Return whether to use colors: as NO_COLOR and FORCE_COLOR say, else if the stream (stderr) is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream or sys.stderr).isatty()


def echo_stderr(text: str, *, style: str | None = None) -> None:
    """Print a line for people, in a color if given."""
    click.echo(click.style(text, fg=style) if style else text, err=True, color=wants_color())


def echo_stdout(text: str) -> None:
    """Print a line of data; control characters in it are shown as pictures."""
    click.echo(sanitize_text(text, max_chars=len(text)))


def show_error(error: RunnerError) -> None:
    """Print an error: what happened, where, and what to do next."""
    head = click.style(f"error[{error.reference}]:", fg="red", bold=True)
    click.echo(f"{head} {error.message}", err=True, color=wants_color())
    for problem in error.problems:
        show_problem(problem)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def show_problem(problem: Problem) -> None:
    """Print a problem of a manifest with its position."""
    click.echo(f"  {problem}", err=True)


def show_bug(error: Exception, arguments: Sequence[str]) -> int:
    """
    Print an internal error, and write its traceback to a file; with ``-v`` print that too.

    Returns:
        The exit code.
    """
    trace = redact("".join(traceback.format_exception(error)))
    if {"-v", "--verbose"} & set(arguments):
        echo_stderr(trace)
    message = sanitize_line(str(error), max_chars=200)
    echo_stderr(f"error[bug]: internal error: {type(error).__name__}: {message}")
    path = _write_trace(trace)
    if path is not None:
        echo_stderr(f"  note: the traceback was written to {path}")
    echo_stderr(
        "  hint: report the error with that file; submitted jobs are on disk, and the same command continues"
    )
    return _BUG_EXIT_CODE


def _write_trace(trace: str) -> str | None:
    try:
        descriptor, path = tempfile.mkstemp(prefix="runner-bug-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return None
    return path


def command_text(*arguments: str | Path) -> str:
    """
    Quote a command so that it can be pasted into a shell.

    >>> command_text("runner", "resume", Path("output/my run"))
    "runner resume 'output/my run'"
    """
    return shlex.join(map(str, arguments))
