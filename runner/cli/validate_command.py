"""`runner validate`: findings to stdout in the form that is asked for, the count to stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from runner.cli.console import echo_stderr, echo_stdout
from runner.cli.options import variable_option
from runner.cli.param_types import MANIFEST
from runner.core.problem import Problem

Show = Callable[[Problem], None]


@click.command("validate")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=MANIFEST)
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="How findings are written; github makes annotations of them.",
)
@variable_option
def command(manifests: tuple[Path, ...], strict: bool, form: str, variables: dict[str, str]) -> int:
    """
    Check manifests: every problem of all of them, each with its place.

    Nothing is sent, and no key is needed. The exit code is 0 where everything can be run, else 2.
    """
    from runner.api.validate import check

    as_json = _JsonList()
    forms: dict[str, Show] = {"text": _as_text, "json": as_json, "github": _as_github}
    checked = check(manifests, on_problem=forms[form], variables=variables, strict=strict)
    if form == "json":
        as_json.end(valid=checked.is_valid, jobs=checked.jobs)
    echo_stderr(str(checked) if checked.is_valid else f"{checked}; nothing was submitted")
    return 0 if checked.is_valid else 2


def _as_text(problem: Problem) -> None:
    echo_stdout(str(problem))


class _JsonList:
    """Writes one JSON object whose problems leave as they are found, so that memory stays flat."""

    def __init__(self) -> None:
        self._between = '{"problems": ['

    def __call__(self, problem: Problem) -> None:
        import json

        position = problem.position
        row: dict[str, Any] = {
            "severity": problem.severity.value,
            "file": position.file,
            "line": position.line or None,
            "column": position.column or None,
            "job": problem.job,
            "path": problem.path,
            "message": problem.message,
            "hint": problem.hint,
        }
        click.echo(f"{self._between}\n{json.dumps(row)}", nl=False)
        self._between = ","

    def end(self, *, valid: bool, jobs: int) -> None:
        """Close the object with what the problems come to; without it the output is no JSON."""
        opened = self._between if self._between != "," else "\n"
        click.echo(f'{opened}], "valid": {str(valid).lower()}, "jobs": {jobs}}}')


def _as_github(problem: Problem) -> None:
    position = problem.position
    where = {"file": position.file, "line": position.line, "col": position.column}
    places = ",".join(f"{name}={_property(str(value))}" for name, value in where.items() if value)
    said = ": ".join(part for part in (problem.job, problem.message) if part)
    echo_stdout(
        f"::{problem.severity} {places}::{_escaped(said + (f'; {problem.hint}' if problem.hint else ''))}",
    )


def _escaped(text: str) -> str:
    """Escape the text of a workflow command, so that nothing in it begins another one."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
