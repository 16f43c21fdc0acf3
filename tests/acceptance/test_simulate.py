"""`runner simulate` as a process of its own, and a run against it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.theatre import command, lines, runner

MANIFEST = """
version: 1
name: served
limits: {submit: 100/s, poll: 100/s}
poll: {first: 50ms, interval: 50ms}
jobs:
  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: a kitten, seconds: 4, size: 480p}}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulator_serves_a_run_until_it_is_told_to_end(number: signal.Signals, tmp_path: Path) -> None:
    """
    Its address stands alone on stdout, what it says how to use makes a run succeed, and it ends quietly.
    """
    (tmp_path / "m.yaml").write_text(MANIFEST)
    words, environ = command("simulate", "--ledger", tmp_path / "ledger.jsonl")
    with subprocess.Popen(
        words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        base_url = served.stdout.readline().strip()
        done = runner(
            "run",
            tmp_path / "m.yaml",
            "-o",
            tmp_path / "out",
            POWERTOKENS_BASE_URL=base_url,
            POWERTOKENS_API_KEY="simulated-key",
        )
        served.send_signal(number)
        rest, said = served.communicate(timeout=20)

    assert (0, "succeeded") == (done.returncode, lines(tmp_path / "out")["a"]["status"]), done.stderr
    assert (0, "") == (served.returncode, rest)
    assert f"export POWERTOKENS_BASE_URL={base_url}" in said
    assert "export POWERTOKENS_API_KEY=" in said
    assert 1 == len([json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()])


def test_scenario_that_is_not_there(tmp_path: Path) -> None:
    """
    A scenario that can't be read is refused with the names of those that come along.
    """
    done = runner("simulate", "--scenario", tmp_path / "absent.yaml")

    assert (2, True) == (done.returncode, "demo, mixed" in done.stderr)
