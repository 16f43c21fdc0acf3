"""`runner validate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from runner.api.validate import check
from runner.cli.console import echo_stderr, echo_stdout, shown_if_slow
from runner.cli.param_types import MANIFEST, VARIABLE
from runner.core.problem import Problem, Severity


@click.command("validate")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=MANIFEST)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="Format of the problems; github prints annotations for GitHub Actions.",
)
@VARIABLE
def validate_command(
    manifests: tuple[Path, ...], strict: bool, output_format: str, var: dict[str, str]
) -> int:
    """
    Check manifests, and print every problem with its position.

    Nothing is sent and no key is needed. The exit code is 2 if there are errors, and 0 otherwise.
    """
    json_writer = _JsonWriter()
    writers: dict[str, Callable[[Problem], None]] = {
        "text": _write_line,
        "json": json_writer.write,
        "github": _write_annotation,
    }
    with shown_if_slow(f"checking {', '.join(map(str, manifests))} ..."):
        checked = check(manifests, on_problem=writers[output_format], variables=var, strict=strict)
    if output_format == "json":
        json_writer.finish(valid=checked.is_valid, jobs=checked.jobs)
    echo_stderr(str(checked) if checked.is_valid else f"{checked}; nothing was submitted")
    return 0 if checked.is_valid else 2


class _JsonWriter:
    """Prints one JSON object, its problems one by one as they are found, so that memory use is constant."""

    def __init__(self) -> None:
        self._separator = '{"problems": ['

    def write(self, problem: Problem) -> None:
        """Print a problem."""
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
        click.echo(f"{self._separator}\n{json.dumps(row)}", nl=False)
        self._separator = ","

    def finish(self, *, valid: bool, jobs: int) -> None:
        """Print the rest of the object."""
        start = self._separator if self._separator != "," else "\n"
        click.echo(f'{start}], "valid": {str(valid).lower()}, "jobs": {jobs}}}')


def _write_line(problem: Problem) -> None:
    place = f"{problem.position}:"
    color = "red" if problem.severity is Severity.ERROR else "yellow"
    echo_stdout(str(problem).removeprefix(place), head=place, head_style=color)


def _write_annotation(problem: Problem) -> None:
    position = problem.position
    values = {"file": position.file, "line": position.line, "col": position.column}
    properties = ",".join(f"{name}={_property(str(value))}" for name, value in values.items() if value)
    text = ": ".join(part for part in (problem.job, problem.message) if part)
    hint = f"; {problem.hint}" if problem.hint else ""
    echo_stdout(f"::{problem.severity} {properties}::{_escaped(text + hint)}")


def _escaped(text: str) -> str:
    """Escape the text of a workflow command, so that it can't contain another one."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
