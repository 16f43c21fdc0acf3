"""Runs commands inside this process, and captures what they print."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from runner.cli.main import run_command_line


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and the output of a command."""

    exit_code: int
    stdout: str
    stderr: str


def runner(*arguments: object) -> CommandResult:
    """Run a command in the working directory and the environment of the test."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        exit_code = run_command_line([str(argument) for argument in arguments])
    return CommandResult(exit_code, stdout.getvalue(), stderr.getvalue())
