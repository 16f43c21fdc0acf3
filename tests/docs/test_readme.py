"""The README is true: generated parts are current, commands run, and nothing is left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.cli.main import COMMANDS
from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.core.stop import Stop, StopReason, exit_code
from tests.docs.sections import README, ROOT, SECTIONS, with_sections

TEXT = README.read_text(encoding="utf-8")


def between(name: str, end: str) -> str:
    """Take the text between two markers."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- {re.escape(end)} -->", TEXT, re.DOTALL)
    assert found is not None, f"no <!-- {name} --> in the README"
    return found[1]


def test_generated_sections_are_current() -> None:
    """What follows from the code is as the code has it now; python -m tests.docs.sections writes it anew."""
    assert with_sections(TEXT) == TEXT


@pytest.mark.parametrize("name", SECTIONS)
def test_generated_sections_say_something(name: str) -> None:
    """No generated section is empty."""
    assert len(list(SECTIONS[name]())) > 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """Each command has its place in the README, under the name that a person types."""
    assert f"### `runner {command}" in TEXT


@pytest.mark.parametrize("cls", FailureClass)
def test_every_failure_class_is_documented(cls: FailureClass) -> None:
    """Each failure class has a row that says what to do."""
    assert f"| `{cls}` |" in TEXT


def test_every_exit_code_is_documented() -> None:
    """Each code that a run can end with has a row."""
    codes = {exit_code([Stop(reason, "")], {State.PENDING: 1}) for reason in StopReason}
    codes |= {exit_code([], {state: 1}) for state in State} | {2, 5}
    rows = re.findall(r"^\| ([\d, ]+) \|", between_heading("Exit codes"), re.MULTILINE)

    assert codes == {int(code) for row in rows for code in row.split(",")}


def between_heading(heading: str) -> str:
    """Take the text from a heading to the next of its level."""
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_run_of_the_readme_works_and_looks_as_shown(tmp_path: Path) -> None:
    """The demo's command runs in a place of its own, and what it prints is what the README shows."""
    block = between("run: install", "end of run")
    command = re.search(r"(runner run .*)", block)
    assert command is not None
    shown = block.split("```")[1].split("\n", 2)[2]
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command[1])],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stdout)
    assert _shape(shown) == _shape(done.stderr)


def test_killed_run_of_the_readme_goes_on(tmp_path: Path) -> None:
    """The killed demo is brought to its end by the same command, and no job was accepted twice."""
    first, second = re.findall(r"^\$ (.*)", between("run: kill", "end of run"), re.MULTILINE)
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    def start(command: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command.replace("runner run", f"{shlex.quote(sys.executable)} -m runner run"))
        return subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False
        )

    killed, done = start(first), start(second)

    accepted = (tmp_path / "output/demo-simulated/simulator.jsonl").read_text().splitlines()
    assert killed.returncode in (-9, 137)
    assert 12 == len(accepted)
    # A kill between intent and id leaves a job in doubt, which is rare and right.
    assert done.returncode in (0, 4)
    assert "of 12 jobs" in done.stderr


def _shape(text: str) -> list[str]:
    """Leave out what differs from run to run: times, rates, sizes and addresses."""
    return [re.sub(r"\d+(\.\d+)?", "N", line).rstrip() for line in text.strip().splitlines()]


def test_examples_of_the_readme_validate(tmp_path: Path) -> None:
    """The manifest that the README shows is a valid one."""
    block = between_heading("The manifest").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "kittens.yaml").write_text(block, encoding="utf-8")
    (tmp_path / "prompts.csv").write_text("name,prompt\na,A kitten\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "runner", "validate", str(tmp_path / "kittens.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stdout)


LOADS = re.findall(r"```python\n(.*?)```", between("loads", "end of loads"), re.DOTALL)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a shipped manifest against the simulator, by the package's own surface."""
    folder = tmp_path_factory.mktemp("run")
    options = runner.RunOptions(simulate=True)
    assert runner.run(ROOT / "manifests" / "seedance-1.yaml", output=folder, options=options).exit_code == 0
    return folder


@pytest.mark.parametrize("code", LOADS, ids=["pandas", "duckdb", "datasets"])
def test_results_load_in_one_line(code: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loader of the README reads the results, with one row a job."""
    pytest.importorskip(code.split()[1])
    monkeypatch.chdir(run_dir)
    names: dict[str, Any] = {}

    exec(code, names)

    assert len(names["loaded"]) == 1


def test_every_file_that_the_readme_links_is_there() -> None:
    """No link into the repository is dead."""
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
