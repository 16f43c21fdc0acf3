"""Nights of a series, and the same manifest from several places: nothing is stranded, and nothing is paid for twice."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
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
  - {name: long night, match: {prompt: 'night 1 *'}, task: {generate_s: 6}}
  - {name: longer, match: {prompt: 'night 0 *'}, task: {generate_s: 60}}
"""
MANIFEST = """
version: 1
name: night-${{day}}
gateway: {{base_url: '{base_url}'}}
vars: {{day: 1}}
limits: {{submit: 50/s, poll: 100/s, in_flight: 4}}
poll: {{first: 100ms, interval: 100ms, max_interval: 200ms, timeout: 20s}}
notify: {{on: [unfinished], command: ['{python}', -c, '{script}']}}
jobs:
  - id: job-${{n}}-${{day}}
    repeat: 6
    request: {{model: seedance-1-5-pro-251215, prompt: 'night ${{day}} ${{n}}', seconds: 4, size: 480p}}
"""
SCRIPT = 'import sys; open(sys.argv[0] or "told", "a").write(sys.stdin.read())'


@dataclass(frozen=True, slots=True)
class Nights:
    """A manifest whose name has a variable, and a folder for its runs."""

    simulator: SimulatorProcess
    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "nightly.yaml"

    def run_dir(self, day: int) -> Path:
        return self.folder / "output" / f"night-{day}"

    def night(self, day: int, *options: str) -> subprocess.CompletedProcess[str]:
        """Run one night."""
        return runner("run", self.manifest, "--var", f"day={day}", *options)

    def strand(self, day: int) -> None:
        """Run a night until four tasks are being rendered."""
        with start("run", self.manifest, "--var", f"day={day}") as process:
            while self.paid().total() < 4:
                time.sleep(0.01)
            process.terminate()
            assert 143 == process.wait(60)
        assert 4 == self.statuses(day)["submitted"]

    def paid(self) -> Counter[str]:
        """Count accepted POSTs by prompt."""
        return Counter(entry["prompt"] for entry in self.simulator.ledger)

    def statuses(self, day: int) -> Counter[str]:
        """Count the states in a night's results."""
        return Counter(line["status"] for line in results_by_id(self.run_dir(day)).values())


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """Start a simulator, and write the manifest."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with run_simulator(tmp_path, SCENARIO) as simulator:
        made = Nights(simulator, tmp_path)
        told = SCRIPT.replace('sys.argv[0] or "told"', f'"{tmp_path}/told"')
        text = MANIFEST.format(base_url=simulator.base_url, python=sys.executable, script=told)
        made.manifest.write_text(text, encoding="utf-8")
        yield made


STRANDED = ("--max-runtime", "4s", "--drain-time", "0s")


def test_second_night_fetches_what_the_first_one_paid_for(nights: Nights) -> None:
    """
    Night 1 ends while tasks are rendered, says so, and night 2 fetches them before it begins; what night 1 did not
    submit stays so until somebody resumes it.
    """
    first = nights.night(1, *STRANDED, "--quiet")
    stranded, told = nights.statuses(1), json.loads((nights.folder / "told").read_text())
    second = nights.night(2)
    caught_up = nights.statuses(1)
    resumed = runner("resume", nights.run_dir(1), nights.run_dir(2), "--json")

    assert (6, 4, 2) == (first.returncode, stranded["submitted"], stranded["pending"])
    assert "; unfinished: 2 pending, 4 submitted\n" in first.stderr
    assert f"next: runner resume {nights.run_dir(1)}   # submits 2 jobs" in first.stderr
    assert ["finish", "unfinished"] == told["occasions"]
    assert 0 == second.returncode, second.stderr
    assert f"fetching what an older run paid for: {nights.run_dir(1)}, 4 jobs" in second.stderr
    assert (4, 2) == (caught_up["succeeded"], caught_up["pending"])
    assert 0 == resumed.returncode, resumed.stderr
    assert [6, 6] == [json.loads(line)["by_status"]["succeeded"] for line in resumed.stdout.splitlines()]
    assert 12 == len(nights.paid()) == nights.paid().total()


def test_older_nights_are_left_if_that_is_wanted(nights: Nights) -> None:
    """
    `--no-catch-up` begins at once.
    """
    nights.strand(1)

    second = nights.night(2, "--no-catch-up")

    assert 0 == second.returncode
    assert 4 == nights.statuses(1)["submitted"]


def test_tasks_that_do_not_end_hold_the_new_night_up_for_the_drain_time_only(nights: Nights) -> None:
    """
    What is still rendered then is left for the next time, and the new night runs.
    """
    nights.strand(0)

    second = nights.night(2, "--drain-time", "500ms", "--quiet")

    assert 0 == second.returncode, second.stderr
    left = f"{nights.run_dir(0)}: 0 jobs fetched, 4 left (later: runner resume {nights.run_dir(0)})\n"
    assert second.stderr.startswith(left)
    assert (4, 6) == (nights.statuses(0)["submitted"], nights.statuses(2)["succeeded"])


def test_doubt_of_a_night_that_was_killed_is_told_by_the_next_one(nights: Nights) -> None:
    """
    Nobody was told by the night itself: one line says so, also with --quiet, and only once.
    """
    assert 6 == nights.night(3, "--limit", "1").returncode
    with closing(sqlite3.connect(nights.run_dir(3) / "run.db")) as database, database:
        database.execute("UPDATE jobs SET state = 'submitting', attempt = 1 WHERE job_id = 'job-2-3'")
        database.execute(
            "INSERT INTO attempts (seq, number, submitted_at, outcome) SELECT seq, 1, 0, 'pending' FROM jobs "
            "WHERE job_id = 'job-2-3'"
        )
        database.execute("DELETE FROM meta WHERE key = 'finished'")

    told, again = (nights.night(4, "--quiet").stderr.splitlines() for _ in range(2))

    assert f"0 jobs fetched, 0 left, 1 uncertain (later: runner resolve {nights.run_dir(3)})" in told[0]
    assert (2, 1) == (len(told), len(again))


def test_signal_while_older_nights_are_fetched_stops_the_new_one(nights: Nights) -> None:
    """
    SIGTERM ends the command with 143 before the new night submits anything; SIGKILL loses nothing either.
    """
    nights.strand(1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with start("run", nights.manifest, "--var", "day=2", stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            while not (line := process.stderr.readline()).startswith("night-1: "):
                assert line
            process.send_signal(number)
            process.communicate()
        assert (143 if number == signal.SIGTERM else -9) == process.returncode
        assert 4 == nights.paid().total()

    done = nights.night(2)

    assert 0 == done.returncode, done.stderr
    assert (4, 6) == (nights.statuses(1)["succeeded"], nights.statuses(2)["succeeded"])
    assert 10 == len(nights.paid()) == nights.paid().total()


def test_two_processes_of_one_series(nights: Nights) -> None:
    """
    Two new nights at once fetch the older one once, and neither fails for the other's sake.
    """
    nights.strand(1)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(start("run", nights.manifest, "--var", f"day={day}", stderr=subprocess.PIPE))
            for day in (2, 3)
        ]
        errors = [process.communicate()[1] for process in processes]

    assert [0, 0] == [process.returncode for process in processes], errors
    assert 4 == nights.statuses(1)["succeeded"]
    assert 16 == len(nights.paid()) == nights.paid().total()


def test_same_manifest_from_two_folders_is_one_run(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By hand from one folder and then by cron from another: every job is paid for once, and the directory is named first.
    """
    results = []
    for name in ("here", "there"):
        (nights.folder / name).mkdir()
        monkeypatch.chdir(nights.folder / name)
        results.append(runner("run", "../nightly.yaml", "--var", "day=2"))
    monkeypatch.chdir(nights.folder)
    results.append(runner("run", "nightly.yaml", "--var", "day=2"))

    assert [0, 0, 0] == [done.returncode for done in results], results
    assert results[0].stderr.startswith(f"run directory: {nights.run_dir(2)}\n")
    assert results[2].stderr.startswith("run directory: output/night-2\n")
    assert 6 == len(nights.paid()) == nights.paid().total()


def test_run_elsewhere_is_an_error_without_a_terminal(nights: Nights) -> None:
    """
    Another -o, and an output that was moved, would pay for all again: exit code 2, and `--new` begins all the same.
    """
    assert 0 == nights.night(2).returncode
    elsewhere = nights.night(2, "-o", str(nights.folder / "two"))
    (nights.folder / "output").rename(nights.folder / "moved")
    moved = nights.night(2)
    plan = runner("plan", nights.manifest, "--var", "day=2")
    paid = nights.paid().total()
    found = nights.night(2, "-o", str(nights.folder / "moved" / "night-2"))
    new = nights.night(2, "-o", str(nights.folder / "two"), "--new")

    assert [2, 2, 0, 0] == [done.returncode for done in (elsewhere, moved, found, new)]
    assert f"was run in {nights.run_dir(2)}" in elsewhere.stderr
    assert "moved or deleted" in moved.stderr
    assert f"asks before it starts, since the manifest was run in {nights.run_dir(2)}" in plan.stderr
    assert "--new" in elsewhere.stderr
    assert "--new" in moved.stderr
    assert 6 == paid
    assert 12 == nights.paid().total()
