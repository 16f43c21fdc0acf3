"""kill -9 at every moment that matters, and at random ones: the simulator's ledger is the judge."""

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

from tests.acceptance.mortal import POINTS, Cut, Mortals, mortals
from tests.acceptance.theatre import Theatre, command, lines, playing

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
name: mortal
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
class House:
    """A simulator, the maker of processes, and a folder for each case."""

    theatre: Theatre
    mortals: Mortals
    folder: Path

    def case(self, name: str, *, count: int, in_flight: int) -> Case:
        """Set up a run whose prompts begin with a name of its own."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        text = MANIFEST.format(base_url=self.theatre.base_url, name=name, count=count, in_flight=in_flight)
        (folder / "manifest.yaml").write_text(text, encoding="utf-8")
        return Case(self, name, folder, count)


@dataclass(frozen=True, slots=True)
class Case:
    """One run, over all its lives."""

    house: House
    name: str
    folder: Path
    count: int

    @property
    def run_dir(self) -> Path:
        return self.folder / "out"

    def live(self, **how: Any) -> int | None:
        """Live once; give the exit code, or None for a process that was killed."""
        return self.house.mortals.live(self.folder / "manifest.yaml", self.run_dir, **how).exit_code

    def submitting(self) -> set[str]:
        """Name the jobs that stand between intent and answer, as the database has them."""
        if not (self.run_dir / "run.db").exists():
            return set()
        with closing(sqlite3.connect(self.run_dir / "run.db")) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return set()
            found = connection.execute("SELECT job_id FROM jobs WHERE state = 'submitting'")
            return {job_id for (job_id,) in found}

    def accepted(self) -> Counter[str]:
        """Count the accepted POSTs by job."""
        mine = [
            entry["prompt"]
            for entry in self.house.theatre.ledger
            if entry["prompt"].startswith(f"{self.name} ")
        ]
        return Counter(f"job-{prompt.rsplit(' ', 1)[1].rstrip('.')}" for prompt in mine)

    def judge(self, exit_code: int | None, *, may_doubt: set[str] | None = None) -> set[str]:
        """
        Hold the end of the run against the ledger, and name the jobs in doubt.

        Args:
            may_doubt: The only jobs that may be in doubt; None for any.
        """
        accepted, results = self.accepted(), lines(self.run_dir)
        assert [f"job-{n}" for n in range(1, self.count + 1)] == list(results)
        doubtful = {job_id for job_id, line in results.items() if line["status"] == "uncertain"}
        for job_id, line in results.items():
            assert accepted[job_id] <= 1, f"{job_id} was paid for {accepted[job_id]} times"
            if job_id not in doubtful:
                assert ("succeeded", 1) == (line["status"], accepted[job_id]), job_id
                self._check_file(line)
        if may_doubt is not None:
            assert doubtful == may_doubt
        assert exit_code == (4 if doubtful else 0)
        return doubtful

    def _check_file(self, line: dict[str, Any]) -> None:
        (asset,) = line["assets"]
        content = (self.run_dir / asset["path"]).read_bytes()
        assert asset["sha256"] == sha256(content).hexdigest()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Give all tests one simulator and one maker of processes."""
    folder = tmp_path_factory.mktemp("house")
    _, environ = command()
    with playing(folder, SCENARIO) as theatre, mortals(environ) as makers:
        yield House(theatre, makers, folder)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_write_in_turn(point: str, when: str, house: House) -> None:
    """
    Cut just before and just after each commit, rename, append and POST in turn, and resumed: every job is
    paid for at most once, and only those are in doubt whose intent was on disk without an id.
    """
    nth = 0
    in_doubt = 0
    while True:
        nth += 1
        case = house.case(f"{point} {when} {nth}", count=3, in_flight=2)
        code = case.live(cut=Cut(point, when, nth))
        if code is not None:
            break
        doubtful = case.submitting()
        in_doubt += len(case.judge(case.live(), may_doubt=doubtful))

    case.judge(code, may_doubt=set())
    assert nth > 1
    assert in_doubt or point in ("rename", "append")


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_moments(seed: int, house: House) -> None:
    """
    Killed again and again at any moment, with faults on the way, a run comes to its end, nothing paid twice.
    """
    dice = random.Random(seed)
    case = house.case(f"faulty {seed}", count=30, in_flight=12)

    for _ in range(dice.randint(1, 5)):
        case.live(killed_after_s=dice.choice([dice.uniform(0.0, 0.1), dice.uniform(0.05, 0.8)]))
    doubtful = case.judge(case.live())

    assert len(doubtful) < 30


def test_results_are_whole_lines_at_any_death(house: House) -> None:
    """
    Whoever reads the results of a run that was killed reads whole lines, or a torn last one at most.
    """
    case = house.case("torn", count=20, in_flight=12)

    case.live(cut=Cut("append", "after", 2))

    *whole, last = (case.run_dir / "results.jsonl").read_bytes().split(b"\n")
    assert all(json.loads(line)["status"] == "succeeded" for line in whole)
    assert b"" == last
