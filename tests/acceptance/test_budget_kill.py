"""
kill -9 at every durable write of a budget, and at random moments of two runs that share a day's: judged by the bill.

The simulator charges by the price table that comes with the program.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from runner.store.ledger_report import held, open_to_read, spent_by
from tests.acceptance.crash_harness import ForkServer, KillPoint, fork_server
from tests.acceptance.simulator_process import SimulatorProcess, command_line, results_by_id, run_simulator

SCENARIO = """
version: 1
seed: 5
generate_s: [0.02, 0.1]
rules:
  - {name: refused, match: {prompt: '*(refused)'}, submit: {fault: bad_request, times: 1000}}
  - {name: throttled, match: {prompt: '*(throttled)'}, submit: throttled_empty}
  - {name: failing, match: {prompt: '*(failing)'}, task: {end: failed}}
  - {name: answer lost, match: {prompt: '*(lost)'}, submit: reset}
"""
KINDS = ["plain", "refused", "open", "throttled", "failing", "plain", "lost", "open"]

MANIFEST = """
version: 1
name: {name}
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 200/s, poll: 200/s, in_flight: 4, downloads: 4}}
poll: {{first: 20ms, interval: 20ms, max_interval: 40ms, timeout: 20s}}
timeouts: {{submit: 5s, poll: 1s, stall: 1s, unknown_task: 1s}}
retry: {{attempts: 4, base: 10ms, cap: 20ms}}
budget: {{day: {day}, ledger: {ledger}}}
jobs:
"""
JOB = "  - {{id: j{n}, request: {{model: wan3.0-video, prompt: '{name} {n} ({kind})', seconds: {seconds}, size: 480P}}}}\n"


@dataclass(frozen=True)
class PaidRun:
    """One run with a budget, over all the processes that work on it."""

    simulator: SimulatorProcess
    server: ForkServer
    folder: Path
    name: str

    @property
    def run_dir(self) -> Path:
        return self.folder / self.name

    def write(self, count: int, *, day: str, kinds: list[str]) -> None:
        """Write the manifest: most jobs cost 0.10 USD, those of an open length up to 1.50 USD."""
        text = MANIFEST.format(
            name=self.name, base_url=self.simulator.base_url, day=day, ledger=self.folder / "spend.db"
        )
        for n in range(count):
            kind = kinds[n % len(kinds)]
            text += JOB.format(n=n, name=self.name, kind=kind, seconds=-1 if kind == "open" else 2)
        (self.folder / f"{self.name}.yaml").write_text(text, encoding="utf-8")

    def run_once(self, **options: Any) -> int | None:
        """Run one process, and return its exit code; None if it was killed."""
        return self.server.run_once(self.folder / f"{self.name}.yaml", self.run_dir, **options)

    def bill(self) -> dict[str, Decimal]:
        """Return what the simulator charged for each job."""
        found: dict[str, Decimal] = {}
        for entry in self.simulator.ledger:
            name, number, _ = entry["prompt"].rsplit(" ", 2)
            if name == self.name:
                assert "USD" == entry["currency"]
                found[f"j{number}"] = found.get(f"j{number}", Decimal(0)) + Decimal(entry["charged"])
        return found

    def check(self) -> Decimal:
        """Hold the results of a run at rest against the bill, and return what they add up to."""
        bill, total = self.bill(), Decimal(0)
        for job_id, line in results_by_id(self.run_dir).items():
            cost = line["cost"]
            if cost is None:
                assert Decimal(0) == bill.get(job_id, Decimal(0)), job_id
                continue
            ours = Decimal(cost["reserved"] if cost["settled"] is None else cost["settled"])
            total += ours
            charged = bill.get(job_id, Decimal(0))
            if line["status"] == "succeeded":
                assert charged == ours, job_id
            else:
                assert charged <= ours, job_id
                assert line["status"] in ("uncertain", "failed"), line
                assert line["status"] == "uncertain" or charged == ours, job_id
        return total


def used(ledger: Path) -> Decimal:
    """Return all that counts in a ledger, in dollars."""
    with open_to_read(ledger) as opened:
        rows = spent_by(opened, "day")
        amount = sum(row.spend.spent + row.spend.reserved for row in rows) + sum(held(opened).values())
    return Decimal(amount) / 10**9


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """Share one simulator among all tests."""
    with run_simulator(tmp_path_factory.mktemp("paid"), SCENARIO) as running:
        yield running


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ForkServer]]:
    """Two fork servers, for two runs at once."""
    _, environ = command_line()
    with ExitStack() as stack:
        yield [stack.enter_context(fork_server(environ)) for _ in range(2)]


def killed_at_each(
    point: str, when: str, simulator: SimulatorProcess, server: ForkServer, folder: Path
) -> int:
    """Kill a run just before or after each write in turn, and continue; return how many writes there were."""
    nth = 0
    while True:
        nth += 1
        run = PaidRun(simulator, server, folder, f"{point}-{when}-{nth}")
        run.write(2, day="1000 USD", kinds=["plain", "throttled"])
        before = used(folder / "spend.db") if (folder / "spend.db").exists() else Decimal(0)
        is_killed = run.run_once(kill_at=KillPoint(point, when, nth)) is None
        if is_killed:
            if run.bill():
                # Whatever was killed, the ledger already has what the gateway charges.
                assert used(folder / "spend.db") - before >= sum(run.bill().values())
            assert run.run_once() in (0, 4)
        assert run.check() == used(folder / "spend.db") - before
        if not is_killed:
            return nth


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.extended)])
def test_killed_at_each_write_of_the_ledger(
    when: str, simulator: SimulatorProcess, servers: list[ForkServer], tmp_path: Path
) -> None:
    """The allowance is set aside before any charge; at rest the ledger is what the attempts add up to."""
    assert killed_at_each("ledger", when, simulator, servers[0], tmp_path) > 3


@pytest.mark.extended
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["commit", "post"])
def test_killed_at_each_commit(
    point: str, when: str, simulator: SimulatorProcess, servers: list[ForkServer], tmp_path: Path
) -> None:
    """The same at each commit of a reservation with its intent, and of a settlement, and at each POST."""
    assert killed_at_each(point, when, simulator, servers[0], tmp_path) > 3


def hammer(
    simulator: SimulatorProcess, servers: list[ForkServer], folder: Path, seed: int, kills: int
) -> int:
    """Kill two runs that share a day's budget at random moments; return how many kills there were."""
    day = Decimal("9.00")
    runs = [
        PaidRun(simulator, server, folder, f"{name}{seed}")
        for server, name in zip(servers, "ab", strict=True)
    ]
    for run in runs:
        run.write(40, day=f"{day} USD", kinds=KINDS)

    def work(run: PaidRun) -> int:
        rng, killed = random.Random(f"{seed} {run.name}"), 0
        for _ in range(kills):
            killed += (
                run.run_once(kill_after_s=rng.choice([rng.uniform(0.0, 0.15), rng.uniform(0.1, 0.9)])) is None
            )
        return killed

    with ThreadPoolExecutor(2) as threads:
        killed = sum(threads.map(work, runs))
        bill = sum((sum(run.bill().values(), Decimal(0)) for run in runs), Decimal(0))
        assert bill <= day
        codes = list(threads.map(PaidRun.run_once, runs))
    assert set(codes) <= {3, 4, 1}
    bill = sum((sum(run.bill().values(), Decimal(0)) for run in runs), Decimal(0))
    assert Decimal(0) < bill <= day
    total = sum((run.check() for run in runs), Decimal(0))
    assert bill <= total <= day
    assert total == used(folder / "spend.db")
    return killed


@pytest.mark.parametrize("seed", range(2))
def test_two_runs_share_a_day(
    seed: int, simulator: SimulatorProcess, servers: list[ForkServer], tmp_path: Path
) -> None:
    """The bill never exceeds the day's budget, and equals what both runs say but for what is uncertain."""
    hammer(simulator, servers, tmp_path, seed, kills=3)


@pytest.mark.extended
@pytest.mark.timeout(1800)
def test_five_hundred_kills(simulator: SimulatorProcess, servers: list[ForkServer], tmp_path: Path) -> None:
    """The same with 500 kills."""
    killed, seed = 0, 100
    while killed < 500:
        folder = tmp_path / str(seed)
        folder.mkdir()
        killed += hammer(simulator, servers, folder, seed, kills=12)
        seed += 1
    print(f"{killed} kills in {seed - 100} pairs of runs")
