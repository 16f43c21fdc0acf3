"""Runs on Ray, whose processes are killed: nothing is paid twice, and nothing paid is unknown."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runner.api.run_ledger import spend
from tests.acceptance.ray_cluster import Nodes, RayRun, awaited, kill_one, processes_below
from tests.acceptance.simulator_process import KEY, SimulatorProcess, run_simulator

pytest.importorskip("ray", reason="needs the extra: pip install '.[ray]'")
pytestmark = [pytest.mark.extended, pytest.mark.timeout(3600)]

SCENARIO = """
version: 1
seed: 3
generate_s: [0.2, 1.5]
rules:
  - {name: throttled, match: {nth: 3, every: 20}, submit: throttled_empty}
"""
SHARD, GOVERNOR = "ray::ShardActor", "ray::GovernorActor"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with run_simulator(tmp_path, SCENARIO) as process:
        yield process


def _listening(pids: list[int]) -> set[str]:
    """Return the addresses on which processes listen, in hex, as the kernel shows them."""
    inodes = set()
    for pid in pids:
        for link in Path("/proc", str(pid), "fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text(encoding="utf-8").splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                found.add(columns[1].rpartition(":")[0])
    return found


def test_a_local_cluster_ends_and_listens_on_loopback_alone(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """
    All jobs get their videos in one run, in one store; no process listens beyond loopback, no key is in Ray's files.
    """
    store = tmp_path / "store"
    more = ("--workers", "2", "--shards", "4", "--assets", store.as_uri())
    run = RayRun(simulator, tmp_path, 24, arguments=more)
    with run.driving() as driver:
        awaited(run.accepted, "a job")
        own = [driver.pid, *processes_below(driver.pid, "")]
        loopback = {socket.inet_aton("127.0.0.1")[::-1].hex().upper(), "0" * 24 + "01000000"}
        mapped = {"0000000000000000FFFF00000100007F"}
        assert _listening(own) <= loopback | mapped
        assert 0 == driver.wait(300), run.output()

    assert 0 == run.check()
    assert "24 of 24 jobs succeeded" in run.output()
    assert 24 == len(list(store.glob("*.mp4")))
    assert [] == [path for path in tmp_path.rglob("*.mp4") if path.parent != store]
    assert KEY not in run.output()
    logs = [path for path in Path("/tmp/ray").glob("session_latest/logs/*") if path.is_file()]
    assert logs
    assert not [path for path in logs if KEY.encode() in path.read_bytes()]


def _kill_until_done(run: RayRun, *, kills: int, title: str, seed: int) -> int:
    """Kill processes of a run again and again, and run the same command until it has ended; return how many."""
    rng, done = random.Random(seed), 0
    while True:
        with run.driving() as driver:
            while driver.poll() is None:
                time.sleep(rng.uniform(1.0, 3.0))
                if done < kills and run.accepted():
                    done += kill_one(driver.pid, title, rng)
            exit_code = driver.returncode
        assert "(raylet)" not in run.output()
        if exit_code in (0, 4):
            return done
        assert 3 == exit_code, run.output()


def test_actors_are_killed(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    Of processes that work on shards, killed a hundred times, nothing is paid twice.
    """
    run = RayRun(simulator, tmp_path, int(os.environ.get("RAY_TEST_JOBS", "600")), submit="4/s")

    kills = _kill_until_done(run, kills=int(os.environ.get("RAY_TEST_KILLS", "200")), title=SHARD, seed=1)

    print(f"{kills} actors killed, {run.check()} of {run.jobs} jobs uncertain, 0 paid twice")


@pytest.mark.parametrize("name", ["run", "day"])
def test_a_budget_holds_while_actors_are_killed(
    simulator: SimulatorProcess, tmp_path: Path, name: str
) -> None:
    """
    Four shards with money for forty jobs, whose processes are killed, never submit more; the run stops for the budget.

    That of a day stops it when one shard finds nothing left, while others may have some; then the next run spends that.
    """
    run = RayRun(simulator, tmp_path, 120, submit="2/s", more=f"budget: {{{name}: 40 USD, unknown: 1 USD}}")
    rng, kills, before = random.Random(3), 0, -1
    while len(run.accepted()) > before:
        before = len(run.accepted())
        with run.driving() as driver:
            while driver.poll() is None:
                time.sleep(rng.uniform(2.0, 4.0))
                if len(run.accepted()) < 30:
                    kills += kill_one(driver.pid, SHARD, rng)
        assert 3 == driver.returncode, run.output()

    assert f"budget.{name}: 40.00 USD of 40.00 USD used" in " ".join(run.output().split())
    accepted, uncertain = run.accepted(), run.states()["uncertain"]
    [total] = spend(tmp_path / "output" / "spend.db").totals
    assert 40 * 10**9 == total.spent
    assert not [prompt for prompt, count in accepted.items() if count > 1]
    assert 40 - uncertain <= len(accepted) <= 40
    print(f"{kills} actors killed, {len(accepted)} of 40 jobs paid for, {uncertain} uncertain")


def test_the_governor_is_killed(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    A governor that is killed starts over, and the run ends with every video, once, and no job is uncertain.
    """
    run = RayRun(simulator, tmp_path, 60, submit="4/s")

    kills = _kill_until_done(run, kills=3, title=GOVERNOR, seed=2)

    assert kills
    assert 0 == run.check()


def _has_accepted(run: RayRun, count: int) -> bool:
    return len(run.accepted()) >= count


def test_drivers_are_killed(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    The same command continues five times after its driver was killed; the shards of the dead one submit nothing more.
    """
    run = RayRun(simulator, tmp_path, 120, submit="4/s")
    for number in range(1, 6):
        with run.driving() as driver:
            awaited(partial(_has_accepted, run, 15 * number), "jobs")
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    with run.driving() as driver:
        assert driver.wait(600) in (0, 4), run.output()

    print(f"5 drivers killed, {run.check()} of {run.jobs} jobs uncertain, 0 paid twice")


def test_nodes_are_lost(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    Of four nodes, one after the other is killed, ten times: the shards continue at others, and nothing is paid twice.
    """
    nodes, rng, lost = Nodes(4), random.Random(4), 0
    run = RayRun(
        simulator, tmp_path, 160, submit="2/s", arguments=("--workers", "4", "--ray-address", nodes.address)
    )
    try:
        while True:
            with run.driving() as driver:
                while driver.poll() is None:
                    time.sleep(rng.uniform(4.0, 8.0))
                    if lost < 10 and run.accepted() and driver.poll() is None:
                        nodes.lose_one(rng)
                        lost += 1
            if driver.returncode in (0, 4):
                break
            assert 3 == driver.returncode, run.output()
    finally:
        nodes.close()

    print(f"{lost} nodes lost, {run.check()} of {run.jobs} jobs uncertain, 0 paid twice")


def test_a_signal_stops_all_shards(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    SIGTERM ends a run in which no job is uncertain, and the same command finishes it.
    """
    run = RayRun(simulator, tmp_path, 80, submit="4/s")
    with run.driving() as driver:
        awaited(partial(_has_accepted, run, 10), "jobs")
        driver.send_signal(signal.SIGTERM)
        assert 143 == driver.wait(300), run.output()
    before = run.accepted()
    assert len(before) < 80
    with run.driving() as driver:
        assert 0 == driver.wait(300), run.output()

    assert 0 == run.check()
