"""The README from top to bottom, and other blocks that are marked so: every command runs as typed, and prints what is shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import run_simulator
from tests.cli.command import runner
from tests.docs.sections import ROOT
from tests.docs.test_pages import FRONT_PAGE, TEXTS, make_clone


def marked(page: str, name: str) -> list[tuple[str, str]]:
    """Return the commands of a block between `<!-- run: NAME -->` and the next end, each with the output that is shown."""
    found = re.search(
        rf"<!-- run: {name} -->\n```console\n(.*?)```\n<!-- end of run -->", TEXTS[page], re.DOTALL
    )
    assert found is not None, f"no block {name} on {page}"
    _, *parts = re.split(r"^\$ ", found[1], flags=re.MULTILINE)
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def shape(text: str) -> list[str]:
    """Leave out what differs from run to run: times, sizes, and how long ago prices were checked."""
    amount = r"\d[\d.]*( [kMG]?B|ms|s|m|h)?\b"
    return [re.sub(rf"{amount}( {amount})*", "N", line).rstrip() for line in text.strip().splitlines()]


class Terminal:
    """A shell in a fresh clone, in which `runner` is on the path."""

    def __init__(self, folder: Path, **environ: str) -> None:
        make_clone(folder)
        program = folder / ".git" / "runner"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m runner "$@"\n')
        program.chmod(0o755)
        self.folder = folder
        self._exports = ""
        self._environ = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            **{name: os.environ[name] for name in ("HOME", "XDG_STATE_HOME")},
            **environ,
        }

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a line; what it exports stays."""
        if command.startswith("export "):
            self._exports += f"{command}\n"
        return subprocess.run(
            ["sh", "-c", self._exports + command],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name", "exit_code"), [("README.md", "demo", 0), ("manifests/README.md", "budget", 3)]
)
def test_simulated_runs_look_as_shown(page: str, name: str, exit_code: int, tmp_path: Path) -> None:
    """One command in a fresh clone, without a key; amounts of money are exactly those that the page shows."""
    ((command, shown),) = marked(page, name)

    done = Terminal(tmp_path).type(command)

    assert exit_code == done.returncode
    assert shape(shown) == shape(done.stdout)
    assert re.findall(r"[0-9.]+ USD", shown) == re.findall(r"[0-9.]+ USD", done.stdout)


@pytest.mark.slow
def test_the_first_video_and_the_dataset(tmp_path: Path) -> None:
    """
    Each command of both sections, in their order, does what is shown and pays for each clip once.

    Only the gateway, the waits and the hour are others than the page's.
    """
    server = tmp_path / "server"
    server.mkdir()
    with run_simulator(server, "version: 1\ngenerate_s: [0.1, 0.2]\n") as simulator:
        terminal = Terminal(tmp_path, POWERTOKENS_BASE_URL=simulator.base_url)
        for language, name in (("csv", "prompts.csv"), ("yaml", "clips.yaml")):
            (text,) = re.findall(rf"^```{language}\n(.*?)^```", FRONT_PAGE, re.DOTALL | re.MULTILINE)
            (tmp_path / name).write_text(text)
        with (tmp_path / "clips.yaml").open("a") as file:
            file.write("poll: {first: 200ms, interval: 200ms}\n")
        for command, shown in [*marked("README.md", "first"), *marked("README.md", "dataset")]:
            done = terminal.type(command.replace("--stop-at 23:00", "--max-runtime 500ms"))
            assert (6 if "--stop-at" in command else 0) == done.returncode, done.stdout
            if shown:
                assert shape(shown) == shape(done.stdout)
                assert re.findall(r"[0-9.]+ USD", shown) == re.findall(r"[0-9.]+ USD", done.stdout)
            if "runner init" in command:
                first = tmp_path / "first.yaml"
                first.write_text(
                    first.read_text().replace("first: 10s, interval: 15s", "first: 200ms, interval: 200ms")
                )

        assert 4 == len(simulator.ledger) == len({entry["prompt"] for entry in simulator.ledger})


FAILS_ONCE = "version: 1\ngenerate_s: [0, 0]\nrules: [{name: once, match: {prompt: 'kitten b'}, task: {end: failed}}]\n"
JOBS = """version: 1
name: clips
jobs: [{id: '${n}', matrix: {n: [a, b, c]}, request: {model: wan3.0-video, prompt: 'kitten ${n}', size: 480p, seconds: 5}}]
"""


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the run directory output/clips, in which one of three simulated jobs has failed."""
    monkeypatch.chdir(tmp_path)
    Path("once.yaml").write_text(FAILS_ONCE)
    Path("clips.yaml").write_text(JOBS)
    first = runner("run", "clips.yaml", "--simulate", "--scenario", "once.yaml", "-o", "output/clips")
    assert 1 == first.exit_code, first.stderr
    return Path("output/clips")


def attempts(run_dir: Path) -> dict[str, tuple[str, int]]:
    """Return the state of each job, and how often it was submitted."""
    lines = map(json.loads, (run_dir / "results.jsonl").read_text().splitlines())
    return {line["job_id"]: (line["status"], len(line["attempts"])) for line in lines}


@pytest.mark.slow
def test_a_rerun_elsewhere_is_brought_home(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the section, one on another machine and one at home: one new attempt, and all videos at home."""
    (there, _), (at_home, _) = marked("README.md", "elsewhere")
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(clips / "results.jsonl", away)
    monkeypatch.chdir(away)
    rerun = runner(*shlex.split(there, comments=True)[1:])
    shutil.move("redo", tmp_path)
    monkeypatch.chdir(tmp_path)
    united = runner(*shlex.split(at_home, comments=True)[1:])

    assert (0, 0) == (rerun.exit_code, united.exit_code), rerun.stderr + united.stderr
    assert {"a": ("succeeded", 1), "b": ("succeeded", 2), "c": ("succeeded", 1)} == attempts(clips)
    assert 3 == len(list((clips / "assets").iterdir()))


@pytest.mark.slow
def test_the_commands_of_the_table_pay_for_what_it_says(clips: Path) -> None:
    """Each command of "I want ..." in its order: the failed job is submitted again once, and the rejected one once."""
    section = FRONT_PAGE.partition("## I want ...")[2].partition("\n## ")[0]
    commands = re.findall(r"`runner ([a-z-]+ (?:MANIFEST|RUN_DIR)[^`]*)`", section)
    assert 10 == len(commands)
    codes = {}
    for command in commands:
        if "reject" in command:
            verdict = {"job_id": "a", "verdict": "reject", "at": "2126-01-01T00:00:00Z"}
            (clips / "verdicts.jsonl").write_text(json.dumps(verdict) + "\n")
        words = command.replace("MANIFEST", "clips.yaml --simulate -o output/clips")
        words = words.replace("RUN_DIR", "output/clips").replace(" JOB", " b")
        done = runner(*shlex.split(words))
        assert "error[" not in done.stderr, done.stderr
        codes[command] = done.exit_code

    before = ["run MANIFEST", "resume RUN_DIR"]
    assert {command: int(command in before) for command in commands} == codes
    assert {"a": ("succeeded", 2), "b": ("succeeded", 2), "c": ("succeeded", 1)} == attempts(clips)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """The killed demo is brought to its end by the same command, and no job was accepted twice."""
    (first, _), (second, _) = marked("runner/README.md", "kill")
    terminal = Terminal(tmp_path)

    killed, done = terminal.type(first), terminal.type(second)

    accepted = (tmp_path / "output/demo-simulated/simulator.jsonl").read_text().splitlines()
    assert killed.returncode in (-9, 137)
    digests = {json.loads(line)["digest"] for line in accepted}
    assert len(digests) == len(accepted)
    # A kill between intent and id leaves a job uncertain, which is rare and right.
    assert (0, 12) == (done.returncode, len(accepted)) or 4 == done.returncode
    assert "of 12 jobs" in done.stdout
