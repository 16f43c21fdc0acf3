"""Machines that are lost with their disks, and owners that come back: nothing is paid twice, and nothing paid is unknown."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner.objects.base import FolderStore
from runner.store.journal import Journal
from runner.store.local_view import Batch
from tests.acceptance.crash_harness import STOPPED, ForkServer, KillPoint, fork_server
from tests.acceptance.simulator_process import (
    SimulatorProcess,
    command_line,
    results_by_id,
    run_simulator,
)
from tests.acceptance.test_kill import MANIFEST
from tests.objects.s3 import s3_server

SCENARIO = """
version: 1
seed: 3
generate_s: [0.02, 0.15]
rules:
  - {name: throttled, match: {nth: 3, every: 10}, submit: throttled_empty}
"""
_POINTS = [
    ("commit", "before"),
    ("commit", "after"),
    ("post", "before"),
    ("post", "after"),
    ("rename", "after"),
]


@dataclass
class LostRun:
    """
    One run with a journal, over all the machines that work on it.

    Attributes:
        machines: Run directories so far.
        doubtful: Jobs whose POST was under way when a machine was lost.
    """

    simulator: SimulatorProcess
    server: ForkServer
    folder: Path
    name: str
    count: int
    machines: int = 0
    doubtful: set[str] = field(default_factory=set)

    @property
    def run_dir(self) -> Path:
        return self.folder / f"machine-{self.machines}"

    def start(self, **kill: Any) -> int | None:
        """Run on the newest machine, and return the exit code."""
        journal = (self.folder / "journal").as_uri()
        return self.server.run_once(self.folder / "m.yaml", self.run_dir, journal=journal, **kill)

    def lose(self) -> None:
        """Note which POSTs were under way, and lose the machine with its disk."""
        self.doubtful |= self.submitting()
        # It may have been killed before it had a directory.
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.machines += 1

    def submitting(self) -> set[str]:
        """Return the jobs that, by the journal, have an intent and no outcome."""
        store = FolderStore(str(self.folder / "journal"))
        states: dict[int, str] = {}
        for info in store.list("shards/00000/log"):
            body = Journal(store, "", 0)._get(int(info.name[-10:])).body
            batch = Batch.from_json(body)
            for row in (*batch.jobs.values(), *batch.intents.values()):
                states[row[-1]] = row[0]
        return {f"job-{seq}" for seq, state in states.items() if state == "submitting"}

    def accepted(self) -> Counter[str]:
        """Count the accepted POSTs by job."""
        own = [
            entry["prompt"] for entry in self.simulator.ledger if entry["prompt"].startswith(f"{self.name} ")
        ]
        return Counter(f"job-{prompt.rsplit(' ', 1)[1].rstrip('.')}" for prompt in own)

    def check(self, exit_code: int | None) -> set[str]:
        """Hold the results against the ledger, and return the uncertain jobs."""
        own = [
            entry["prompt"] for entry in self.simulator.ledger if entry["prompt"].startswith(f"{self.name} ")
        ]
        accepted = Counter(f"job-{prompt.rsplit(' ', 1)[1].rstrip('.')}" for prompt in own)
        results = results_by_id(self.run_dir)
        assert [f"job-{n}" for n in range(1, self.count + 1)] == list(results)
        uncertain = {job_id for job_id, line in results.items() if line["status"] == "uncertain"}
        for job_id, line in results.items():
            assert accepted[job_id] <= 1, f"{job_id} was paid for {accepted[job_id]} times"
            if job_id not in uncertain:
                assert ("succeeded", 1) == (line["status"], accepted[job_id]), job_id
                self._check_file(line)
        assert (4 if uncertain else 0) == exit_code
        return uncertain

    def _check_file(self, line: dict[str, Any]) -> None:
        (asset,) = line["assets"]
        assert (self.run_dir / asset["path"]).stat().st_size == asset["bytes"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatorProcess, ForkServer, Path]]:
    """Share one simulator and one fork server among all tests."""
    folder = tmp_path_factory.mktemp("lost")
    _, environ = command_line()
    with run_simulator(folder, SCENARIO) as simulator, fork_server(environ) as server:
        yield simulator, server, folder


def prepare(
    world: tuple[SimulatorProcess, ForkServer, Path], name: str, *, count: int, in_flight: int
) -> LostRun:
    """Write the manifest of a run whose prompts begin with its name."""
    simulator, server, parent = world
    folder = parent / name.replace(" ", "-")
    folder.mkdir()
    text = MANIFEST.format(base_url=simulator.base_url, name=name, count=count, in_flight=in_flight)
    (folder / "m.yaml").write_text(text, encoding="utf-8")
    return LostRun(simulator, server, folder, name, count)


def lose_machines(world: tuple[SimulatorProcess, ForkServer, Path], seed: int, kills: int) -> tuple[int, int]:
    """Kill a run again and again, each time with its disk; return how often, and how many jobs are uncertain."""
    rng = random.Random(seed)
    run = prepare(world, f"kill {seed} {kills}", count=12, in_flight=4)
    done = 0
    for _ in range(kills):
        if rng.random() < 0.7:
            point, when = rng.choice(_POINTS)
            exit_code = run.start(kill_at=KillPoint(point, when, rng.randint(1, 6)))
        else:
            exit_code = run.start(kill_after_s=rng.uniform(0.02, 0.6))
        if exit_code is not None:
            break
        run.lose()
        done += 1
    uncertain = run.check(run.start())
    # Doubt is about POSTs that were under way, and about no other job.
    assert run.doubtful == uncertain
    return done, len(uncertain)


@pytest.mark.parametrize("seed", range(2))
def test_machines_are_lost_with_their_disks(
    seed: int, world: tuple[SimulatorProcess, ForkServer, Path]
) -> None:
    """Killed with its disk four times, a run ends on the fifth machine; only POSTs under way are uncertain."""
    kills, _ = lose_machines(world, seed, 4)

    assert kills > 0


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_five_hundred_machines_are_lost(world: tuple[SimulatorProcess, ForkServer, Path]) -> None:
    """The same with 500 kills."""
    kills = uncertain = 0
    seed = 1000
    while kills < 500:
        done, doubt = lose_machines(world, seed, 8)
        kills, uncertain, seed = kills + done, uncertain + doubt, seed + 1
    print(
        f"{kills} kills with the disk, {seed - 1000} runs, {uncertain} jobs uncertain, 0 paid twice, 0 unknown"
    )


def partition(
    world: tuple[SimulatorProcess, ForkServer, Path], number: int, point: tuple[str, str], nth: int
) -> None:
    """Stop an owner, let another machine finish its run, and let the old owner continue."""
    run = prepare(world, f"cut {number} {point[0]} {point[1]}", count=10, in_flight=3)
    assert STOPPED == run.start(kill_at=KillPoint(*point, nth, is_stopped=True))
    run.machines += 1

    finished = run.start()
    fenced = run.server.continue_stopped()

    # Its own directory is as it was cut off; the new owner's is the run.
    assert 3 == fenced
    run.check(finished)


@pytest.mark.parametrize("point", [("commit", "before"), ("post", "before")])
def test_an_owner_that_comes_back_is_fenced(
    point: tuple[str, str], world: tuple[SimulatorProcess, ForkServer, Path]
) -> None:
    """Stopped at a commit, and between intent and POST: it sends at most that one, which is uncertain for the new owner."""
    partition(world, 0, point, 3)


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_a_hundred_partitions(world: tuple[SimulatorProcess, ForkServer, Path]) -> None:
    """Of a hundred old owners every one is fenced."""
    for number in range(1, 101):
        point = [("commit", "before"), ("commit", "after"), ("post", "before"), ("post", "after")][number % 4]
        partition(world, number, point, 1 + number % 5)


def test_a_machine_that_is_asked_to_end_leaves_no_doubt(
    world: tuple[SimulatorProcess, ForkServer, Path],
) -> None:
    """SIGTERM lets POSTs on their way end: on another machine nothing is uncertain."""
    run = prepare(world, "ended", count=40, in_flight=4)
    command, environ = command_line(
        "run",
        run.folder / "m.yaml",
        "-o",
        run.run_dir,
        "--journal",
        (run.folder / "journal").as_uri(),
        "--quiet",
    )
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(run.accepted()) < 5 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert 143 == process.returncode
    assert 40 > len(run.accepted())

    run.lose()

    assert set() == run.check(run.start())


@pytest.mark.extended
@pytest.mark.parametrize("fault", ["403", "refused"])
def test_a_store_that_refuses_in_mid_run(
    world: tuple[SimulatorProcess, ForkServer, Path], fault: str
) -> None:
    """Credentials that expire, or a store that is down for a minute: exit 3; the next run there finishes, without doubt."""
    run = prepare(world, f"store {fault}", count=60, in_flight=4)
    with s3_server() as (store, variables):
        command, environ = command_line(
            "run",
            run.folder / "m.yaml",
            "-o",
            run.run_dir,
            "--journal",
            "s3://videos/journal",
            "--submit-rate",
            "10/s",
            **variables,
        )
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            while len(run.accepted()) < 10 and process.poll() is None:
                time.sleep(0.02)
            store.fault = lambda method, path: fault if method == "PUT" else None
            _, errors = process.communicate()
        assert 3 == process.returncode, errors
        assert 60 > len(run.accepted())
        store.reset()
        done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, check=False)

    assert set() == run.check(done.returncode), done.stderr


def test_a_machine_that_is_lost_before_its_run_began(
    world: tuple[SimulatorProcess, ForkServer, Path],
) -> None:
    """Killed before the journal has anything: the next machine begins, and is not asked whether it is a second run."""
    run = prepare(world, "early", count=2, in_flight=2)
    assert run.start(kill_at=KillPoint("base", "before", 1)) is None
    run.lose()

    assert set() == run.check(run.start())


def test_a_machine_that_slept_after_an_intent(world: tuple[SimulatorProcess, ForkServer, Path]) -> None:
    """The POST is not sent then, but later with an intent of its own."""
    run = prepare(world, "slept", count=1, in_flight=1)

    assert set() == run.check(run.start(kill_at=KillPoint("intent", "after", 1)))

    (line,) = results_by_id(run.run_dir).values()
    outcomes = [attempt["outcome"] for attempt in line["attempts"]]
    assert ("not_sent", "accepted") == (outcomes[0], outcomes[-1])
