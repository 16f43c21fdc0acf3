"""kill -9 at every durable write and at random moments, checked against the simulator's ledger."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.crash_harness import POINTS, ForkServer, KillPoint, fork_server
from tests.acceptance.simulator_process import SimulatorProcess, command_line, results_by_id, run_simulator

SCENARIO = """
version: 1
seed: 3
generate_s: [0.02, 0.15]
rules:
  - {name: throttled, match: {prompt: 'faulty*', nth: 3, every: 10}, submit: throttled_empty}
  - {name: answer lost, match: {prompt: 'faulty*', nth: 5, every: 10}, submit: reset}
  - {name: slow answer, match: {prompt: 'faulty*', nth: 6, every: 10}, submit: {fault: hang, for_s: 0.2}}
  - {name: odd polls, match: {prompt: 'faulty*', nth: 7, every: 10}, poll: [bad_gateway, forbidden, reset]}
  - {name: cut short, match: {prompt: 'faulty*', nth: 8, every: 10}, asset: [{fault: truncated, at: 0.5}]}
"""

MANIFEST = """
version: 1
name: killed
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: {in_flight}, downloads: 4}}
poll: {{first: 30ms, interval: 30ms, max_interval: 60ms, timeout: 20s}}
timeouts: {{submit: 5s, poll: 1s, stall: 1s, unknown_task: 1s}}
retry: {{attempts: 4, base: 20ms, cap: 50ms}}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request: {{model: seedance-1-5-pro-251215, prompt: '{name} ${{n}}.', seconds: 4, size: 480p}}
"""


@dataclass(frozen=True, slots=True)
class CrashHarness:
    """A simulator, the server that forks processes, and a folder with a folder for each run."""

    simulator: SimulatorProcess
    fork_server: ForkServer
    folder: Path

    def prepare(self, name: str, *, count: int, in_flight: int) -> KilledRun:
        """Write the manifest of a run whose prompts begin with its own name."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        text = MANIFEST.format(base_url=self.simulator.base_url, name=name, count=count, in_flight=in_flight)
        (folder / "manifest.yaml").write_text(text, encoding="utf-8")
        return KilledRun(self, name, folder, count)


@dataclass(frozen=True, slots=True)
class KilledRun:
    """One run, over all the processes that work on it."""

    harness: CrashHarness
    name: str
    folder: Path
    count: int

    @property
    def run_dir(self) -> Path:
        return self.folder / "out"

    def run_once(self, **options: Any) -> int | None:
        """Run one process, and return its exit code; None if it was killed."""
        return self.harness.fork_server.run_once(self.folder / "manifest.yaml", self.run_dir, **options)

    def submitting(self) -> set[str]:
        """Return the jobs whose intent is in the database and whose answer is not."""
        if not (self.run_dir / "run.db").exists():
            return set()
        with closing(sqlite3.connect(self.run_dir / "run.db")) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return set()
            found = connection.execute("SELECT job_id FROM jobs WHERE state = 'submitting'")
            return {job_id for (job_id,) in found}

    def accepted(self) -> Counter[str]:
        """Count the accepted POSTs by job."""
        own = [
            entry["prompt"]
            for entry in self.harness.simulator.ledger
            if entry["prompt"].startswith(f"{self.name} ")
        ]
        return Counter(f"job-{prompt.rsplit(' ', 1)[1].rstrip('.')}" for prompt in own)

    def check(self, exit_code: int | None, *, may_be_uncertain: set[str] | None = None) -> set[str]:
        """
        Check the results of the finished run against the ledger, and return the uncertain jobs.

        Args:
            may_be_uncertain: The only jobs that may be uncertain; None for any.
        """
        accepted, results = self.accepted(), results_by_id(self.run_dir)
        assert [f"job-{n}" for n in range(1, self.count + 1)] == list(results)
        uncertain = {job_id for job_id, line in results.items() if line["status"] == "uncertain"}
        for job_id, line in results.items():
            assert accepted[job_id] <= 1, f"{job_id} was paid for {accepted[job_id]} times"
            if job_id not in uncertain:
                assert ("succeeded", 1) == (line["status"], accepted[job_id]), job_id
                self._check_file(line)
        if may_be_uncertain is not None:
            assert may_be_uncertain == uncertain
        assert (4 if uncertain else 0) == exit_code
        return uncertain

    def _check_file(self, line: dict[str, Any]) -> None:
        (asset,) = line["assets"]
        content = (self.run_dir / asset["path"]).read_bytes()
        assert sha256(content).hexdigest() == asset["sha256"]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHarness]:
    """Share one simulator and one fork server among all tests."""
    folder = tmp_path_factory.mktemp("killed")
    _, environ = command_line()
    with run_simulator(folder, SCENARIO) as simulator, fork_server(environ) as server:
        yield CrashHarness(simulator, server, folder)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_write_in_turn(point: str, when: str, harness: CrashHarness) -> None:
    """
    Killed just before and just after each commit, rename, append and POST in turn, and resumed: every job is
    paid for at most once, and only jobs whose intent was on disk without a task id are uncertain.
    """
    nth = 0
    uncertain = 0
    while True:
        nth += 1
        run = harness.prepare(f"{point} {when} {nth}", count=3, in_flight=2)
        exit_code = run.run_once(kill_at=KillPoint(point, when, nth))
        if exit_code is not None:
            break
        submitting = run.submitting()
        uncertain += len(run.check(run.run_once(), may_be_uncertain=submitting))

    run.check(exit_code, may_be_uncertain=set())
    assert nth > 1
    assert uncertain or point in ("rename", "append")


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_moments(seed: int, harness: CrashHarness) -> None:
    """
    Killed again and again at any moment, with faults besides, a run is finished and nothing is paid twice.
    """
    rng = random.Random(seed)
    run = harness.prepare(f"faulty {seed}", count=12, in_flight=6)

    for _ in range(rng.randint(1, 5)):
        run.run_once(kill_after_s=rng.choice([rng.uniform(0.0, 0.1), rng.uniform(0.05, 0.8)]))
    uncertain = run.check(run.run_once())

    assert len(uncertain) < 12


def test_results_are_complete_lines_whenever_killed(harness: CrashHarness) -> None:
    """
    The results of a killed run are complete lines, but for a torn last line at most.
    """
    run = harness.prepare("torn", count=20, in_flight=12)

    run.run_once(kill_at=KillPoint("append", "after", 2))

    *complete, last = (run.run_dir / "results.jsonl").read_bytes().split(b"\n")
    assert all(json.loads(line)["status"] == "succeeded" for line in complete)
    assert b"" == last
