"""The question before much is paid, at a real terminal; and a ledger that another process keeps locked."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import (
    SimulatorProcess,
    command_line,
    run_simulator,
    runner,
    write_fast_manifest,
)

SCENARIO = "version: 1\ngenerate_s: [0.01, 0.02]\n"
JOBS = """
jobs:
  - id: j-${{n}}
    repeat: {count}
    request: {{model: wan3.0-video, prompt: 'A kitten ${{n}}', size: {size}, seconds: 10}}
"""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """Share one simulator among all tests."""
    with run_simulator(tmp_path_factory.mktemp("asked"), SCENARIO) as running:
        yield running


def at_terminal(answer: bytes, *arguments: str | Path) -> tuple[int, str]:
    """Run a command at a terminal of its own and type an answer; return the exit code and what was shown."""
    command, environ = command_line(*arguments, TERM="dumb")
    terminal, own = pty.openpty()
    with subprocess.Popen(command, env=environ, stdin=own, stdout=own, stderr=own, close_fds=True) as process:
        os.close(own)
        shown = b""
        os.write(terminal, answer)
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        code = process.wait(60)
    os.close(terminal)
    return code, shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("count", "size", "reroll", "cost"),
    [
        (21, "480P", "", "21 paid jobs for at most 10.50 USD?"),
        (6, "1080P", "", "6 paid jobs for at most 12.00 USD?"),
        (
            4,
            "1080P",
            "reroll: {remote_failed: 1}",
            "4 paid jobs for at most 8.00 USD, and up to 2 takes of each?",
        ),
    ],
)
def test_no_sends_nothing(
    count: int, size: str, reroll: str, cost: str, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """More than 20 jobs, or more than 10 of the currency with all takes, are asked about; after a no, nothing was sent."""
    jobs = f"{reroll}{JOBS.format(count=count, size=size)}"
    manifest = write_fast_manifest(tmp_path, "asked", simulator.base_url, jobs)
    before = len(simulator.ledger)

    code, shown = at_terminal(b"n\n", "run", manifest)

    assert 3 == code
    assert cost in shown
    assert "not confirmed; nothing was sent" in shown
    assert before == len(simulator.ledger)


@pytest.mark.parametrize("options", [["--yes"], []])
def test_yes_and_scripts_are_not_asked(
    options: list[str], simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """With --yes, or without a terminal, all are submitted."""
    manifest = write_fast_manifest(tmp_path, "quiet", simulator.base_url, JOBS.format(count=21, size="480P"))
    before = len(simulator.ledger)

    if options:
        code, shown = at_terminal(b"n\n", "run", manifest, *options)
    else:
        done = runner("run", manifest)
        code, shown = done.returncode, done.stderr

    assert 0 == code, shown
    assert "[y/N]" not in shown
    assert before + 21 == len(simulator.ledger)


def test_few_cheap_jobs_are_not_asked_about(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """A handful of clips for less than 10 of the currency begins at once."""
    manifest = write_fast_manifest(tmp_path, "few", simulator.base_url, JOBS.format(count=2, size="480P"))

    code, shown = at_terminal(b"", "run", manifest)

    assert 0 == code, shown
    assert "[y/N]" not in shown


@pytest.mark.extended
def test_a_ledger_that_stays_locked(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """After 30 s it is an error, and nothing was submitted."""
    manifest = write_fast_manifest(
        tmp_path,
        "locked",
        simulator.base_url,
        f"budget: {{day: 5 USD, ledger: {tmp_path}/spend.db}}\n{JOBS.format(count=2, size='480P')}",
    )
    before = len(simulator.ledger)
    with closing(sqlite3.connect(tmp_path / "spend.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = runner("run", manifest, timeout_s=100)

    assert 3 == done.returncode, done.stderr
    assert "locked by another process for 30 s" in done.stderr
    assert before == len(simulator.ledger)
