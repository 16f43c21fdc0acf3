"""Run the command line as a person does, inside this process, and look at what came of it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from runner.cli.main import run_command_line


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left: its exit code, its data and what it said to people."""

    code: int
    out: str
    err: str


def runner(*arguments: object) -> Ran:
    """Run a command; the working directory and the environment are the test's."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command_line([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())
