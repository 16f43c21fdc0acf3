"""`runner simulate` as a process of its own, and a run against it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import command_line, results_by_id, runner

MANIFEST = """
version: 1
name: simulated
limits: {submit: 100/s, poll: 100/s}
poll: {first: 50ms, interval: 50ms}
jobs:
  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: a kitten, seconds: 4, size: 480p}}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulator_serves_a_run_until_a_signal_stops_it(number: signal.Signals, tmp_path: Path) -> None:
    """
    It prints its address alone to stdout and instructions that work to stderr, and stops without output.
    """
    (tmp_path / "m.yaml").write_text(MANIFEST)
    arguments, environ = command_line("simulate", "--ledger", tmp_path / "ledger.jsonl")
    with subprocess.Popen(
        arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as simulator:
        assert simulator.stdout is not None
        base_url = simulator.stdout.readline().strip()
        done = runner(
            "run",
            tmp_path / "m.yaml",
            "-o",
            tmp_path / "out",
            POWERTOKENS_BASE_URL=base_url,
            POWERTOKENS_API_KEY="simulated-key",
        )
        simulator.send_signal(number)
        stdout, stderr = simulator.communicate(timeout=20)

    assert (0, "succeeded") == (done.returncode, results_by_id(tmp_path / "out")["a"]["status"]), done.stderr
    assert (0, "") == (simulator.returncode, stdout)
    assert f"export POWERTOKENS_BASE_URL={base_url}" in stderr
    assert "export POWERTOKENS_API_KEY=" in stderr
    assert 1 == len([json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()])


def test_scenario_that_does_not_exist(tmp_path: Path) -> None:
    """
    A scenario that can't be read is an error that lists the shipped scenarios.
    """
    done = runner("simulate", "--scenario", tmp_path / "absent.yaml")

    assert (2, True) == (done.returncode, "demo, mixed" in done.stderr)
