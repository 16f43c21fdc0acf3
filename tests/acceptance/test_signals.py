"""Ctrl-C and SIGTERM on a real process: what it still finishes, what it says, and what is on disk."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.theatre import Theatre, command, lines, playing, runner

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
  - {{name: trickles, match: {{prompt: 'kitten 1'}}, asset: {{fault: slow, bytes_per_s: 8000}}}}
  - {{name: renders on, match: {{prompt: 'kitten 3'}}, task: {{end: never}}}}
"""


@contextmanager
def going(folder: Path, *, hang_s: float) -> Iterator[tuple[subprocess.Popen[str], Theatre, Path]]:
    """Start a run, and hand it over once one POST hangs, one download trickles and one task renders."""
    run_dir = folder / "my run"
    with playing(folder, SCENARIO.format(hang_s=hang_s)) as theatre:
        manifest = folder / "stopped.yaml"
        manifest.write_text(MANIFEST.format(base_url=theatre.base_url), encoding="utf-8")
        words, environ = command("run", manifest, "-o", run_dir, "-v", "--log-file", folder / "log.jsonl")
        with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_until_busy(process, run_dir)
                yield process, theatre, run_dir
            finally:
                process.kill()


def wait_until_busy(process: subprocess.Popen[str], run_dir: Path) -> None:
    """Look at the run, as a person would, until a POST, a task and a download are under way at once."""
    while process.poll() is None:
        status = runner("status", run_dir, "--json")
        if not status.returncode:
            counts = json.loads(status.stdout)["by_status"]
            if all(counts[state] == 1 for state in ("submitting", "submitted", "downloading")):
                return
    raise AssertionError(f"the run ended: {process.communicate()[1]}")


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
)
def test_first_signal_finishes_what_is_in_hand(
    tmp_path: Path, number: signal.Signals, code: int, reason: str
) -> None:
    """
    The answer to the POST on its way is recorded, the download in hand ends, and the command that goes on is said.
    """
    with going(tmp_path, hang_s=2.5) as (process, theatre, run_dir):
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        states = {job_id: line["status"] for job_id, line in lines(run_dir).items()}

        assert code == process.returncode, said
        assert "succeeded" == states["job-1"]
        # The gateway closed the connection without an answer: known at once, and not taken for a task.
        assert "uncertain" == states["job-2"]
        assert "submitted" == states["job-3"]
        assert {"pending"} == {states[f"job-{n}"] for n in (4, 5, 6)}
        assert f"stopped[{reason}]" in said
        assert shlex.join(["runner", "resume", str(run_dir)]) in said
        assert 3 == len(theatre.ledger)


def test_second_signal_stops_at_once_and_leaves_the_doubt_on_disk(tmp_path: Path) -> None:
    """
    Whoever can't wait gets out within seconds; the POST that was given up is in doubt, and nothing is paid twice.
    """
    with going(tmp_path, hang_s=30) as (process, theatre, run_dir):
        process.send_signal(signal.SIGINT)
        said_first = read_until(process, "interrupted")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)
        states = {job_id: line["status"] for job_id, line in lines(run_dir).items()}

        assert 130 == process.returncode, said_first + said
        assert "uncertain" == states["job-2"]
        assert "downloading" == states["job-1"]
        assert "runner resolve" in said

        resolved = runner("resolve", run_dir, "job-2", "--task-id", task_of(theatre, "kitten 2"))
        resumed = runner("resume", run_dir, "--job", "job-[12]")

    assert 0 == resolved.returncode, resolved.stderr
    states = {job_id: line["status"] for job_id, line in lines(run_dir).items()}
    assert {"succeeded"} == {states["job-1"], states["job-2"]}, resumed.stderr
    assert 3 == len(theatre.ledger)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read lines of a process up to the first with a word in it."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            break
    return said


def task_of(theatre: Theatre, prompt: str) -> str:
    """Name the task that was made for a prompt."""
    return next(str(entry["task_id"]) for entry in theatre.ledger if entry["prompt"] == prompt)


def test_signal_while_the_manifest_is_read_ends_at_once(tmp_path: Path) -> None:
    """
    Before any job was taken up there is nothing to finish: the process ends, and the directory has no jobs.
    """
    manifest = tmp_path / "large.yaml"
    manifest.write_text(
        "version: 1\nname: large\njobs:\n  - id: 'job-${n}'\n    repeat: 300000\n"
        "    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}'}\n",
        encoding="utf-8",
    )
    words, environ = command("run", manifest, "--simulate", "-o", tmp_path / "out")
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
        # The directory is locked before the first job is read.
        while not (tmp_path / "out" / "run.db").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert 130 == process.returncode
    assert "nothing was sent" in said
    assert "Traceback" not in said


def test_signal_while_waiting_for_the_lock(tmp_path: Path) -> None:
    """
    A run that waits for another process to leave the directory can be ended.
    """
    with going(tmp_path, hang_s=30) as (_, _, run_dir):
        words, environ = command("resume", run_dir, "--if-locked", "wait")
        with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as waiting:
            said = read_until(waiting, "waiting for it")
            waiting.send_signal(signal.SIGTERM)
            said += waiting.communicate(timeout=20)[1]

    assert 143 == waiting.returncode, said
