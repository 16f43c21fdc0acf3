"""A lost task is asked for once more before anything is paid for again."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import KEY, SimulatorProcess, results_by_id, run_simulator, runner

MANIFEST = """
version: 1
name: lost
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 20}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 10s}}
timeouts: {{unknown_task: 50ms}}
jobs:
  - id: job-${{n}}
    repeat: 3
    request: {{model: seedance-1-0-pro-250528, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}
"""
SCENARIO = """
version: 1
generate_s: 0.1
rules:
  - {{name: lost, match: {{prompt: 'kitten 2', nth: [1, 2, 3]}}, task: {{{task}}}}}
"""
MISSING, FOR_GOOD = "missing_s: 2", "end: lost"


def wait_until_known(simulator: SimulatorProcess, task_id: str) -> None:
    """Ask for a task until the simulator knows it."""
    request = urllib.request.Request(
        f"{simulator.base_url}/v1/videos/{task_id}", headers={"Authorization": f"Bearer {KEY}"}
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(0.05)
    raise AssertionError("the task was never known")


@pytest.mark.parametrize(
    "command",
    [
        ("run", "{manifest}", "-o", "{out}"),
        ("resume", "{out}"),
        ("rerun", "{out}"),
        ("rerun", "{out}", "--class", "lost"),
    ],
    ids=["run", "resume", "rerun", "rerun of the class"],
)
def test_task_that_is_known_again_is_not_paid_for_again(command: tuple[str, ...], tmp_path: Path) -> None:
    """
    A task that was lost and is known again is downloaded, even if its class is named for new attempts.
    """
    manifest, out = tmp_path / "lost.yaml", tmp_path / "out"
    with run_simulator(tmp_path, SCENARIO.format(task=MISSING)) as simulator:
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        assert 1 == runner("run", manifest, "-o", out).returncode
        lost = results_by_id(out)["job-2"]
        assert ("failed", "lost") == (lost["status"], lost["error"]["class"])
        wait_until_known(simulator, lost["task_id"])

        done = runner(*(part.format(manifest=manifest, out=out) for part in command))

        assert 0 == done.returncode, done.stderr
        assert ("succeeded", lost["task_id"]) == tuple(
            results_by_id(out)["job-2"][key] for key in ("status", "task_id")
        )
        assert 3 == len(simulator.ledger)


def test_task_that_stays_lost_is_paid_for_again_only_by_class(tmp_path: Path) -> None:
    """
    A run and a rerun leave the job as it is; with --class lost it is submitted once the task is still unknown.
    """
    manifest, out = tmp_path / "lost.yaml", tmp_path / "out"
    with run_simulator(tmp_path, SCENARIO.format(task=FOR_GOOD)) as simulator:
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        for arguments in (("run", manifest, "-o", out), ("run", manifest, "-o", out), ("rerun", out)):
            assert 1 == runner(*arguments).returncode
        assert 3 == len(simulator.ledger)
        assert "lost" == results_by_id(out)["job-2"]["error"]["class"]

        done = runner("rerun", out, "--class", "lost")

        assert 0 == done.returncode, done.stderr
        assert "succeeded" == results_by_id(out)["job-2"]["status"]
        assert 4 == len(simulator.ledger)
        attempts = results_by_id(out)["job-2"]["attempts"]
        assert ["accepted", "accepted"] == [attempt["outcome"] for attempt in attempts]


def test_gateway_that_is_down_leaves_lost_jobs_as_they_are(tmp_path: Path) -> None:
    """
    Only the answer that the task is unknown allows a new attempt; a gateway that can't be reached does not.
    """
    manifest, out = tmp_path / "lost.yaml", tmp_path / "out"
    with run_simulator(tmp_path, SCENARIO.format(task=FOR_GOOD)) as simulator:
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        runner("run", manifest, "-o", out)

    done = runner("rerun", out, "--class", "lost")

    assert 1 == done.returncode
    assert "lost tasks can't be polled now" in done.stderr
    job = results_by_id(out)["job-2"]
    assert ("failed", "lost") == (job["status"], job["error"]["class"])
