"""Speaking to people: errors, warnings and colour on stderr. Data goes to stdout, and nothing here writes there."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click

from runner.core.problem import Problem
from runner.errors import ManifestError, RunnerError


def wants_colour(stream: TextIO | None = None) -> bool:
    """Follow NO_COLOR and FORCE_COLOR, and else whether the stream (stderr) is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream or sys.stderr).isatty()


def say(text: str, *, style: str | None = None) -> None:
    """Write a line for people."""
    click.echo(click.style(text, fg=style) if style else text, err=True, color=wants_colour())


def data(text: str) -> None:
    """Write a line of data to stdout. What it quotes from manifests and from the API can't paint the terminal."""
    from runner.report.words import plain

    click.echo(plain(text, most=len(text)))


def show_error(error: RunnerError) -> None:
    """
    Show an error: what happened, where, and what to do next.

    >>> from runner.errors import RunLocked
    >>> str(RunLocked("output/kittens is in use by pid 8812", hint="wait for it"))
    'output/kittens is in use by pid 8812'
    """
    head = click.style(f"error[{error.reference}]:", fg="red", bold=True)
    click.echo(f"{head} {error.message}", err=True, color=wants_colour())
    if isinstance(error, ManifestError):
        for problem in error.problems:
            show_problem(problem)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def show_problem(problem: Problem) -> None:
    """Show what is wrong with a manifest, and where."""
    click.echo(f"  {problem}", err=True)
