"""A job is its id and its request: what counts as the same job, and what happens to one that is not."""

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

from tests.acceptance.theatre import Theatre, command, lines, playing, runner

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
class Desk:
    """A manifest that is edited between runs into one run directory."""

    theatre: Theatre
    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "out"

    @property
    def manifest(self) -> Path:
        return self.folder / "identity.yaml"

    def write(self, *jobs: str) -> Path:
        """Write the manifest's jobs, each as a line of YAML."""
        text = HEAD.format(base_url=self.theatre.base_url) + "".join(f"  {job}\n" for job in jobs)
        self.manifest.write_text(text, encoding="utf-8")
        return self.manifest

    def run(self, *jobs: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the manifest with these jobs."""
        return runner("run", self.write(*jobs), "-o", self.run_dir, *options)

    def paid(self) -> Counter[str]:
        """Count accepted POSTs by prompt."""
        return Counter(entry["prompt"] for entry in self.theatre.ledger)

    def states(self) -> dict[str, str]:
        """Give each job's state."""
        return {job_id: line["status"] for job_id, line in lines(self.run_dir).items()}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Give a test a simulator of its own."""
    with playing(tmp_path, SCENARIO) as theatre:
        yield Desk(theatre, tmp_path)


A = "- {id: a, request: {prompt: sky}}"
B = "- {id: b, request: {prompt: sea}}"
C = "- {id: c, request: {prompt: fire}}"


def test_moving_inserting_and_commenting_pays_for_nothing_again(desk: Desk) -> None:
    """
    Only the new job is submitted; results come in the new order.
    """
    desk.run(A, B)

    done = desk.run("# a comment", C, B, "", "# another", A + "  # moved")

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "fire": 1} == desk.paid()
    assert ["c", "b", "a"] == list(desk.states())


def test_same_run_again_sends_nothing(desk: Desk) -> None:
    """
    Once all is done the same command does nothing, and says so by its exit code.
    """
    desk.run(A, B)
    before = (desk.run_dir / "results.jsonl").stat().st_mtime_ns

    done = desk.run(A, B)

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1} == desk.paid()
    assert before == (desk.run_dir / "results.jsonl").stat().st_mtime_ns


def test_changed_job_is_refused_and_what_changed_is_listed(desk: Desk) -> None:
    """
    The same id with another request stops everything, and the message names the job and the field.
    """
    desk.run(A, B)

    done = desk.run(A.replace("sky", "cloud"), B, C)

    assert 2 == done.returncode
    assert "prompt: 'sky' -> 'cloud'" in done.stderr
    assert {"sky": 1, "sea": 1} == desk.paid()


def test_changed_job_is_kept_where_that_is_asked_for(desk: Desk) -> None:
    """
    With `--on-changed keep` the old result stands, and the other jobs run.
    """
    desk.run(A, B)

    done = desk.run(A.replace("sky", "cloud"), B, C, options=("--on-changed", "keep"))

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "fire": 1} == desk.paid()


def test_changed_job_is_run_again_where_that_is_asked_for(desk: Desk) -> None:
    """
    With `--on-changed rerun` the new request is paid for, and its own video takes the old one's place.
    """
    desk.run(A, B)
    before = lines(desk.run_dir)["a"]["assets"][0]

    done = desk.run("- {id: a, request: {prompt: cloud, seconds: 8}}", B, options=("--on-changed", "rerun"))

    assert 0 == done.returncode
    assert {"sky": 1, "sea": 1, "cloud": 1} == desk.paid()
    (after,) = lines(desk.run_dir)["a"]["assets"]
    assert (4.0, 8.0) == (before["duration_s"], after["duration_s"])
    assert 2 == len(lines(desk.run_dir)["a"]["attempts"])


def test_job_that_left_the_manifest_is_not_submitted_and_its_task_is_fetched(desk: Desk) -> None:
    """
    What was paid for is fetched though its job is gone; what was not, is not submitted.
    """
    slow = "- {id: s, request: {prompt: slow one}}"
    first = desk.run(slow, B, C, options=("--limit", "1", "--max-runtime", "1s", "--drain-time", "0s"))

    done = desk.run(C)

    assert 6 == first.returncode
    assert 0 == done.returncode
    assert {"slow one": 1, "fire": 1} == desk.paid()
    assert {"c": "succeeded", "s": "succeeded", "b": "pending"} == desk.states()


def test_job_with_a_task_is_never_submitted(desk: Desk) -> None:
    """
    A task that exists already is fetched; one that failed stays so however often it is run again.
    """
    desk.run(A, "- {id: f, request: {prompt: failing one}}")
    tasks = {entry["prompt"]: entry["task_id"] for entry in desk.theatre.ledger}
    other = desk.folder / "other"
    good = f"- {{id: a, task_id: {tasks['sky']}, request: {{prompt: sky}}}}"
    bad = f"- {{id: f, task_id: {tasks['failing one']}, request: {{prompt: failing one}}}}"
    manifest = desk.write(good, bad)

    runner("run", manifest, "-o", other)
    runner("run", manifest, "-o", other, "--retry-failed")
    done = runner("rerun", other)

    assert 1 == done.returncode
    assert {"a": "succeeded", "f": "failed"} == {k: v["status"] for k, v in lines(other).items()}
    assert {"sky": 1, "failing one": 1} == desk.paid()


def test_identical_requests_under_two_ids_are_warned_of(desk: Desk) -> None:
    """
    Two jobs that ask for the same are both run, with a warning: a deliberate repeat is written as one.
    """
    done = desk.run(A, A.replace("id: a", "id: twin"))

    assert 0 == done.returncode
    assert {"sky": 2} == desk.paid()
    assert "warning" in done.stderr
    assert "repeat" in done.stderr


def test_second_process_is_refused_and_readers_are_not(desk: Desk) -> None:
    """
    While a run is going another is refused with exit 5 and the pid; `status` and `plan` read all the same.
    """
    manifest = desk.write("- {id: s, request: {prompt: slow one}}")
    words, environ = command("run", manifest, "-o", desk.run_dir)
    with subprocess.Popen(words, env=environ, stderr=subprocess.DEVNULL) as process:
        while not desk.theatre.ledger:
            time.sleep(0.02)
        second = runner("run", manifest, "-o", desk.run_dir)
        status = runner("status", desk.run_dir, "--json")
        plan = runner("plan", manifest, "-o", desk.run_dir, "--json")
        assert 0 == process.wait()

    assert 5 == second.returncode
    assert f"pid {process.pid}" in second.stderr
    assert 1 == json.loads(status.stdout)["jobs"]
    assert 1 == json.loads(plan.stdout)["to_poll"]
    assert {"slow one": 1} == desk.paid()


@pytest.mark.parametrize("harm", ["garbage", "newer"])
def test_database_that_can_not_be_used_is_refused_and_left_alone(harm: str, desk: Desk) -> None:
    """
    A damaged run.db, or one of a newer version, is refused by every command, and not a byte of it changes.
    """
    desk.run(A)
    path = desk.run_dir / "run.db"
    if harm == "garbage":
        content = bytearray(path.read_bytes())
        content[4096:12288] = b"\xa5" * 8192
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    for words in (
        ("run", desk.manifest, "-o", desk.run_dir),
        ("resume", desk.run_dir),
        ("status", desk.run_dir),
    ):
        done = runner(*words)
        assert 2 == done.returncode
        assert "Traceback" not in done.stderr

    assert before == path.read_bytes()
    assert {"sky": 1} == desk.paid()
