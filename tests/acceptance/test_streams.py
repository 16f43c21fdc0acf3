"""Standard streams that are closed, full or of a small encoding: they change nothing about how a command ends."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANIFEST = """\
version: 1
jobs:
  - {id: good, request: {model: seedance-1-0-pro-250528, prompt: 'Kätzchen 猫', seconds: 4, size: 480p}}
  - {id: bad, request: {model: seedance-1-0-pro-250528, prompt: fails, seconds: 4, size: 480p}}
"""
SCENARIO = """\
version: 1
generate_s: [0.1, 0.2]
rules: [{name: it, match: {prompt: fails}, task: {end: failed}}]
"""
REDIRECTIONS = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1")


def _shell(
    folder: Path, redirections: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder, with its streams redirected by a shell."""
    command = shlex.join([sys.executable, "-m", "runner", *arguments])
    return subprocess.run(
        ["sh", "-c", f"exec {command} {redirections}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a manifest of two jobs, and a scenario in which one of them fails."""
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_run_ends_with_its_own_exit_code(redirections: str, folder: Path) -> None:
    """A run with one failed job exits with 1, whatever its streams are, and everything is on disk."""
    done = _shell(
        folder,
        redirections,
        "run",
        "m.yaml",
        "--simulate",
        "--scenario",
        "scenario.yaml",
        "-o",
        "o",
        "--json",
    )

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr + done.stdout
    results = [json.loads(line) for line in (folder / "o" / "results.jsonl").read_bytes().splitlines()]
    assert {"good": "succeeded", "bad": "failed"} == {line["job_id"]: line["status"] for line in results}


@pytest.mark.parametrize("redirections", REDIRECTIONS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("validate", "m.yaml"), 0),
        (("validate", "absent.yaml"), 2),
        (("plan", "m.yaml", "--simulate", "--show", "2"), 0),
        (("--help",), 0),
        (("no-such-command",), 2),
    ],
)
def test_short_commands_end_with_their_exit_code(
    arguments: tuple[str, ...], code: int, redirections: str, folder: Path
) -> None:
    """Data that can't be written, and messages that nobody gets, are no errors."""
    assert code == _shell(folder, redirections, *arguments).returncode


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "ascii"])
def test_output_in_any_encoding(encoding: str, folder: Path) -> None:
    """Characters that the terminal's encoding lacks are replaced."""
    (folder / "m.yaml").write_text(MANIFEST.replace("seconds: 4", "'秒数 ☃ \U0001f63a': 4"), encoding="utf-8")
    checked = _shell(folder, "", "validate", "m.yaml", PYTHONIOENCODING=encoding)
    (folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    planned = _shell(folder, "", "plan", "m.yaml", "--simulate", "--show", "2", PYTHONIOENCODING=encoding)

    assert checked.returncode == 2, checked.stderr
    assert b"unknown key" in checked.stdout
    assert planned.returncode == 0, planned.stderr


def test_reader_of_the_summary_that_went_away(folder: Path) -> None:
    """The exit code of a run is its own even if nobody reads its summary."""
    options = "run m.yaml --simulate --scenario scenario.yaml -o o --json --quiet"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.quote(sys.executable)} -m runner {options} | true"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
