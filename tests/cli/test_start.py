"""
How fast a command starts: which modules it imports, because a test of the time itself would be flaky.

Imports are half of the time of a short command, so one import in the wrong place slows down every command.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLAIN = """\
version: 1
jobs:
  - id: a
    request: {model: seedance-1-0-pro-250528, prompt: A kitten, seconds: '5'}
"""
WITH_VARIABLE = PLAIN.replace("'5'", "'${length}'") + "vars: {length: '5'}\n"
WITH_ROWS = PLAIN.replace("'5'", "'${length}'").replace("id: a", "id: a\n    from: rows.jsonl")

HEAVY = {
    "aiohttp",
    "asyncio",
    "rich",
    "jinja2",
    "jsonschema",
    "sqlite3",
    "uvloop",
    "importlib.metadata",
}
"""Libraries that take from 3 ms to 100 ms each."""

OF_RUNS = {"runner.store", "runner.worker", "runner.gateway"}
OF_ERRORS = {"runner.schema.explain", "difflib"}
OF_FILES = {"runner.manifest.local_files", "imagesize"}
"""Modules that only some manifests need."""


def _run(code: str, folder: Path, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        check=check,
        capture_output=True,
        text=True,
    )


def _imported(code: str, folder: Path, among: set[str]) -> set[str]:
    """Run code in a new interpreter, and return which of some modules it imported."""
    script = f"import sys\n{code}\nprint(*({among!r} & sys.modules.keys()))"
    return set(_run(script, folder, check=True).stdout.split()) & among


def _command(*arguments: str) -> str:
    return f"from runner.cli.main import run_command_line\nassert run_command_line({list(arguments)!r}) == 0"


def test_help_imports_no_command() -> None:
    """It lists every command, and imports none."""
    used = _imported(_command("--help"), ROOT, HEAVY | {"yaml", "dataclasses", "runner.core", "runner.api"})

    assert set() == used


@pytest.mark.parametrize(
    ("text", "spared"),
    [(PLAIN, HEAVY | OF_RUNS | OF_ERRORS | OF_FILES), (WITH_VARIABLE, HEAVY | OF_RUNS | OF_ERRORS)],
)
def test_validate_imports_what_the_manifest_needs(text: str, spared: set[str], tmp_path: Path) -> None:
    """A valid manifest is checked without the heavy libraries."""
    (tmp_path / "m.yaml").write_text(text, encoding="utf-8")

    assert set() == _imported(_command("validate", "m.yaml"), tmp_path, spared)


def test_rows_import_nothing_heavy(tmp_path: Path) -> None:
    """Valid rows are checked without the heavy libraries, too."""
    (tmp_path / "rows.jsonl").write_text('{"length": "5"}\n', encoding="utf-8")
    (tmp_path / "m.yaml").write_text(WITH_ROWS, encoding="utf-8")

    used = _imported(_command("validate", "m.yaml"), tmp_path, HEAVY | OF_RUNS | OF_ERRORS | OF_FILES)

    assert set() == used


def test_a_real_run_imports_no_simulator_and_no_report(tmp_path: Path) -> None:
    """Before the first POST, a run does not import the simulator, the report, or what few runs need."""
    spared = {
        "runner.simulator",
        "aiohttp.web",
        "jinja2",
        "rich",
        "jsonschema",
        "imagesize",
        "ctypes",
        "runner.manifest.local_files",
        "runner.report.page",
        "runner.report.csv_table",
        "runner.report.junit",
        "runner.report.step_summary",
        "csv",
        "xml.sax",
        "runner.checks.video_checker",
        "runner.results.reader",
        "runner.engine.governor_client",
        "runner.gateway.library",
        "runner.api.rerun",
        "runner.cli.final_summary",
        "importlib.metadata",
        "html.entities",
        "click.shell_completion",
    }

    used = _imported(
        "import runner.api.run, runner.cli.run_session, runner.cli.run_commands", tmp_path, spared
    )

    assert set() == used


# Whoever runs the tests in the background may have made them ignore Ctrl-C.
INTERRUPT = """\
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupt:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            {statement}

sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["validate", "m.yaml"]
from runner.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("click", "os.kill(os.getpid(), signal.SIGINT)"),
        ("runner.cli.validate_command", "os.kill(os.getpid(), signal.SIGINT)"),
        ("runner.cli.validate_command", "type('Class', (), {'name': Interrupt()})"),
    ],
)
def test_interrupt_while_modules_are_imported(module: str, statement: str, tmp_path: Path) -> None:
    """Ctrl-C during the start prints one line, whatever Python makes of it, and the exit code is that of an interrupt."""
    result = _run(INTERRUPT.format(module=module, statement=statement), tmp_path)

    assert (130, "interrupted") == (result.returncode, result.stderr.strip())


INTERRUPT_AT_EXIT = """\
import asyncio, atexit, os, signal, sys
from runner.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv[1:] = ["--version"]
main()
"""


def test_interrupt_at_exit(tmp_path: Path) -> None:
    """Ctrl-C while libraries clean up prints no traceback: it ends the process as a shell expects it."""
    result = _run(INTERRUPT_AT_EXIT, tmp_path)

    assert (-signal.SIGINT, "") == (result.returncode, result.stderr)
