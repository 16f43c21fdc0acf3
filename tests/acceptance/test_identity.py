"""A job is identified by its id and its request: which edits of a manifest keep a job, and which change it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import (
    SimulatorProcess,
    results_by_id,
    run_simulator,
    runner,
    start,
)

SCENARIO = """
version: 1
generate_s: 0.1
rules:
  - {name: slow, match: {prompt: 'slow *'}, task: {generate_s: 3}}
  - {name: failing, match: {prompt: 'failing *'}, task: {end: failed}}
"""

HEAD = """
version: 1
name: identity
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 50/s, poll: 100/s, in_flight: 20}}
poll: {{first: 100ms, interval: 100ms, max_interval: 200ms, timeout: 20s}}
defaults: {{request: {{model: seedance-1-5-pro-251215, seconds: 4, size: 480p}}}}
jobs:
"""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A manifest that is edited between runs that share a run directory."""

    simulator: SimulatorProcess
    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "out"

    @property
    def manifest(self) -> Path:
        return self.folder / "identity.yaml"

    def write(self, *jobs: str) -> Path:
        """Write a manifest with these jobs, each given as a line of YAML."""
        text = HEAD.format(base_url=self.simulator.base_url) + "".join(f"  {job}\n" for job in jobs)
        self.manifest.write_text(text, encoding="utf-8")
        return self.manifest

    def run(self, *jobs: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a manifest with these jobs."""
        return runner("run", self.write(*jobs), "-o", self.run_dir, *options)

    def paid(self) -> Counter[str]:
        """Count accepted POSTs by prompt."""
        return Counter(entry["prompt"] for entry in self.simulator.ledger)

    def states(self) -> dict[str, str]:
        """Return the state of each job."""
        return {job_id: line["status"] for job_id, line in results_by_id(self.run_dir).items()}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Start a simulator for one test."""
    with run_simulator(tmp_path, SCENARIO) as simulator:
        yield Workspace(simulator, tmp_path)


A = "- {id: a, request: {prompt: sky}}"
B = "- {id: b, request: {prompt: sea}}"
C = "- {id: c, request: {prompt: fire}}"


def test_moving_inserting_and_commenting_pays_for_no_job_again(workspace: Workspace) -> None:
    """
    Only the new job is submitted; the results are in the new order.
    """
    workspace.run(A, B)

    done = workspace.run("# a comment", C, B, "", "# another", A + "  # moved")

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "fire": 1} == workspace.paid()
    assert ["c", "b", "a"] == list(workspace.states())


def test_same_run_again_sends_nothing(workspace: Workspace) -> None:
    """
    Once all jobs succeeded, the same command does nothing and exits with 0.
    """
    workspace.run(A, B)
    before = (workspace.run_dir / "results.jsonl").stat().st_mtime_ns

    done = workspace.run(A, B)

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1} == workspace.paid()
    assert before == (workspace.run_dir / "results.jsonl").stat().st_mtime_ns


def test_changed_job_is_refused_and_the_change_is_shown(workspace: Workspace) -> None:
    """
    The same id with another request is an error that names the job and the field; nothing is sent.
    """
    workspace.run(A, B)

    done = workspace.run(A.replace("sky", "cloud"), B, C)

    assert 2 == done.returncode
    assert "prompt: 'sky' -> 'cloud'" in done.stderr
    assert {"sky": 1, "sea": 1} == workspace.paid()


def test_on_changed_keep(workspace: Workspace) -> None:
    """
    With `--on-changed keep` the old result is kept, and the other jobs run.
    """
    workspace.run(A, B)

    done = workspace.run(A.replace("sky", "cloud"), B, C, options=("--on-changed", "keep"))

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "fire": 1} == workspace.paid()


def test_on_changed_rerun(workspace: Workspace) -> None:
    """
    With `--on-changed rerun` the new request is paid for, and its video replaces the old one.
    """
    workspace.run(A, B)
    before = results_by_id(workspace.run_dir)["a"]["assets"][0]

    done = workspace.run(
        "- {id: a, request: {prompt: cloud, seconds: 8}}", B, options=("--on-changed", "rerun")
    )

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "cloud": 1} == workspace.paid()
    (after,) = results_by_id(workspace.run_dir)["a"]["assets"]
    assert (4.0, 8.0) == (before["duration_s"], after["duration_s"])
    assert 2 == len(results_by_id(workspace.run_dir)["a"]["attempts"])


def test_removed_job_is_not_submitted_and_its_task_is_fetched(workspace: Workspace) -> None:
    """
    A removed job that was paid for is downloaded; one that was not is not submitted.
    """
    slow = "- {id: s, request: {prompt: slow one}}"
    first = workspace.run(slow, B, C, options=("--limit", "1", "--max-runtime", "1s", "--drain-time", "0s"))

    done = workspace.run(C)

    assert 6 == first.returncode
    assert 0 == done.returncode
    assert {"slow one": 1, "fire": 1} == workspace.paid()
    assert {"c": "succeeded", "s": "succeeded", "b": "pending"} == workspace.states()


def test_job_with_a_task_is_never_submitted(workspace: Workspace) -> None:
    """
    A job with a `task_id` is polled and downloaded; if its task failed, no rerun submits it.
    """
    workspace.run(A, "- {id: f, request: {prompt: failing one}}")
    tasks = {entry["prompt"]: entry["task_id"] for entry in workspace.simulator.ledger}
    other = workspace.folder / "other"
    good = f"- {{id: a, task_id: {tasks['sky']}, request: {{prompt: sky}}}}"
    bad = f"- {{id: f, task_id: {tasks['failing one']}, request: {{prompt: failing one}}}}"
    manifest = workspace.write(good, bad)

    runner("run", manifest, "-o", other, "--new")
    runner("run", manifest, "-o", other, "--retry-failed")
    done = runner("rerun", other)

    assert 1 == done.returncode
    assert {"a": "succeeded", "f": "failed"} == {k: v["status"] for k, v in results_by_id(other).items()}
    assert {"sky": 1, "failing one": 1} == workspace.paid()


def test_identical_requests_under_two_ids_get_a_warning(workspace: Workspace) -> None:
    """
    Two jobs with the same request are both run, with a warning that names `repeat`.
    """
    done = workspace.run(A, A.replace("id: a", "id: copy"))

    assert 0 == done.returncode
    assert {"sky": 2} == workspace.paid()
    assert "warning" in done.stderr
    assert "repeat" in done.stderr


def test_second_process_is_refused_and_readers_are_not(workspace: Workspace) -> None:
    """
    While a run is active, another is refused with exit code 5 and the pid; `status` and `plan` still work.
    """
    manifest = workspace.write("- {id: s, request: {prompt: slow one}}")
    with start("run", manifest, "-o", workspace.run_dir) as process:
        while not workspace.simulator.ledger:
            time.sleep(0.02)
        second = runner("run", manifest, "-o", workspace.run_dir)
        status = runner("status", workspace.run_dir, "--json")
        plan = runner("plan", manifest, "-o", workspace.run_dir, "--json")
        assert 0 == process.wait()

    assert 5 == second.returncode
    assert f"pid {process.pid}" in second.stderr
    assert 1 == json.loads(status.stdout)["jobs"]
    planned = json.loads(plan.stdout)
    # On a slow machine the job may have ended by then.
    assert 1 == planned["to_poll"] + planned["to_download"] + planned["done"]
    assert {"slow one": 1} == workspace.paid()


@pytest.mark.parametrize("damage", ["garbage", "newer"])
def test_unusable_database_is_refused_and_left_unchanged(damage: str, workspace: Workspace) -> None:
    """
    A damaged run.db, or one of a newer version, is refused by every command, and not a byte of it changes.
    """
    workspace.run(A)
    path = workspace.run_dir / "run.db"
    if damage == "garbage":
        content = bytearray(path.read_bytes())
        content[4096:12288] = b"\xa5" * 8192
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    for arguments in (
        ("run", workspace.manifest, "-o", workspace.run_dir),
        ("resume", workspace.run_dir),
        ("status", workspace.run_dir),
    ):
        done = runner(*arguments)
        assert 2 == done.returncode
        assert "Traceback" not in done.stderr

    assert before == path.read_bytes()
    assert {"sky": 1} == workspace.paid()
