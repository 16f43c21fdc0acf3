"""Ctrl-C and SIGTERM sent to a real process: what it still finishes, what it prints, and what is on disk."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import (
    SimulatorProcess,
    command_line,
    results_by_id,
    run_simulator,
    runner,
)

MANIFEST = """
version: 1
name: stopped
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 2}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 60s}}
timeouts: {{submit: 30s}}
jobs:
  - id: job-${{n}}
    repeat: 6
    request: {{model: seedance-1-0-pro-250528, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}
"""

SCENARIO = """
version: 1
generate_s: [0.1, 0.2]
rules:
  - {{name: answers late, match: {{prompt: 'kitten 2'}}, submit: {{fault: hang, for_s: {hang_s}}}}}
  - {{name: trickles, match: {{prompt: 'kitten 1'}}, task: {{asset_bytes: 24000}},
     asset: {{fault: slow, bytes_per_s: 8000}}}}
  - {{name: never ends, match: {{prompt: 'kitten 3'}}, task: {{end: never}}}}
"""


@contextmanager
def busy_run(
    folder: Path, *, hang_s: float
) -> Iterator[tuple[subprocess.Popen[str], SimulatorProcess, Path]]:
    """Start a run, and yield it once one POST hangs, one download is slow and one task is running."""
    run_dir = folder / "my run"
    with run_simulator(folder, SCENARIO.format(hang_s=hang_s)) as simulator:
        manifest = folder / "stopped.yaml"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        arguments, environ = command_line(
            "run", manifest, "-o", run_dir, "-v", "--log-file", folder / "log.jsonl"
        )
        with subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_until_busy(process, run_dir)
                yield process, simulator, run_dir
            finally:
                process.kill()


def wait_until_busy(process: subprocess.Popen[str], run_dir: Path) -> None:
    """Ask for the run's status until one POST, one task and one download are active at once."""
    while process.poll() is None:
        status = runner("status", run_dir, "--json")
        if not status.returncode:
            counts = json.loads(status.stdout)["by_status"]
            if all(counts[state] == 1 for state in ("submitting", "submitted", "downloading")):
                return
    raise AssertionError(f"the run ended: {process.communicate()[1]}")


@pytest.mark.parametrize(
    ("number", "exit_code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
)
def test_first_signal_finishes_active_submissions_and_downloads(
    tmp_path: Path, number: signal.Signals, exit_code: int, reason: str
) -> None:
    """
    The answer to the active POST is recorded, the active download is finished, and the command that continues
    the run is printed.
    """
    with busy_run(tmp_path, hang_s=2.5) as (process, simulator, run_dir):
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        states = {job_id: line["status"] for job_id, line in results_by_id(run_dir).items()}

        assert exit_code == process.returncode, stderr
        assert "succeeded" == states["job-1"]
        # The gateway closed the connection without an answer, which is noticed at once.
        assert "uncertain" == states["job-2"]
        assert "submitted" == states["job-3"]
        assert {"pending"} == {states[f"job-{n}"] for n in (4, 5, 6)}
        assert f"stopped[{reason}]" in stderr
        assert shlex.join(["runner", "resume", str(run_dir)]) in stderr
        assert 3 == len(simulator.ledger)


def test_second_signal_stops_at_once_and_records_the_job_as_uncertain(tmp_path: Path) -> None:
    """
    The process ends within seconds; the job whose POST was abandoned is uncertain, and nothing is paid twice.
    """
    with busy_run(tmp_path, hang_s=30) as (process, simulator, run_dir):
        process.send_signal(signal.SIGINT)
        stderr = read_until(process, "interrupted")
        process.send_signal(signal.SIGINT)
        stderr += process.communicate(timeout=15)[1]
        states = {job_id: line["status"] for job_id, line in results_by_id(run_dir).items()}

        assert 130 == process.returncode, stderr
        assert "uncertain" == states["job-2"]
        assert "downloading" == states["job-1"]
        assert "runner resolve" in stderr

        resolved = runner("resolve", run_dir, "job-2", "--task-id", task_of(simulator, "kitten 2"))
        resumed = runner("resume", run_dir, "--job", "job-[12]")

    assert 0 == resolved.returncode, resolved.stderr
    states = {job_id: line["status"] for job_id, line in results_by_id(run_dir).items()}
    assert {"succeeded"} == {states["job-1"], states["job-2"]}, resumed.stderr
    assert 3 == len(simulator.ledger)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read a process's lines up to and including the first that contains a word."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if word in line:
            break
    return text


def task_of(simulator: SimulatorProcess, prompt: str) -> str:
    """Return the id of the task that was made for a prompt."""
    return next(str(entry["task_id"]) for entry in simulator.ledger if entry["prompt"] == prompt)


def test_signal_while_the_manifest_is_read_ends_at_once(tmp_path: Path) -> None:
    """
    Before any job was started there is nothing to finish: the process ends at once.
    """
    manifest = tmp_path / "large.yaml"
    manifest.write_text(
        "version: 1\nname: large\njobs:\n  - id: 'job-${n}'\n    repeat: 300000\n"
        "    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}'}\n",
        encoding="utf-8",
    )
    arguments, environ = command_line("run", manifest, "--simulate", "-o", tmp_path / "out")
    with subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True) as process:
        # The directory is locked before the first job is read.
        while not (tmp_path / "out" / "run.db").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)

    assert 130 == process.returncode
    assert "nothing was sent" in stderr
    assert "Traceback" not in stderr


def test_signal_while_waiting_for_the_lock(tmp_path: Path) -> None:
    """
    A run that waits for another process to release the directory can be stopped.
    """
    with busy_run(tmp_path, hang_s=30) as (_, _, run_dir):
        arguments, environ = command_line("resume", run_dir, "--if-locked", "wait")
        with subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True) as waiting:
            stderr = read_until(waiting, "waiting for it")
            waiting.send_signal(signal.SIGTERM)
            stderr += waiting.communicate(timeout=20)[1]

    assert 143 == waiting.returncode, stderr
