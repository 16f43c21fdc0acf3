"""Reruns of a run, of its results on another machine, and of failed.yaml: only failed jobs are paid for again."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import SimulatorProcess, results_by_id, run_simulator, runner

MANIFEST = """
version: 1
name: chain
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 20}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 3s}}
timeouts: {{submit: 1s, unknown_task: 1s}}
retry: {{attempts: 2, base: 50ms, cap: 100ms}}
jobs:
  - id: job-${{n}}
    repeat: 8
    request: {{model: wan3.0-video, prompt: 'kitten ${{n}}', seconds: 4, size: 480P}}
"""

SCENARIO = """
version: 1
seed: 1
generate_s: [0.1, 0.3]
rules:
  - {name: fails, match: {prompt: 'kitten 1', nth: [1, 2, 3, 4, 5, 6, 7, 8]}, task: {end: failed}}
  - {name: undelivered, match: {prompt: 'kitten 2'}, asset: {fault: no_moov, times: always},
     content: {fault: no_moov, times: 1}}
  - {name: refused, match: {prompt: 'kitten 3', nth: [1, 2, 3, 4, 5, 6, 7, 8]}, task: {end: moderation}}
  - {name: uncertain, match: {prompt: 'kitten 4'}, submit: {fault: reset, created: true}}
"""
# The rules count the first eight submissions, those of the first run: what a rerun submits matches none.

STATES = {
    "job-1": "failed",
    "job-2": "undelivered",
    "job-3": "failed",
    "job-4": "uncertain",
    **{f"job-{n}": "succeeded" for n in range(5, 9)},
}


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """Serve the scenario."""
    with run_simulator(tmp_path, SCENARIO) as process:
        (tmp_path / "chain.yaml").write_text(MANIFEST.format(base_url=process.base_url), encoding="utf-8")
        yield process


@pytest.fixture
def first(tmp_path: Path, simulator: SimulatorProcess) -> Path:
    """Run the manifest once: some jobs fail, each in another way."""
    run_dir = tmp_path / "first"
    done = runner("run", tmp_path / "chain.yaml", "-o", run_dir)
    assert (4, STATES) == (done.returncode, states(run_dir)), done.stderr
    return run_dir


def states(run_dir: Path) -> dict[str, str]:
    """Read the state of each job from the results."""
    return {job_id: line["status"] for job_id, line in results_by_id(run_dir).items()}


def paid(simulator: SimulatorProcess) -> dict[str, int]:
    """Count the accepted POSTs of each job."""
    return dict(Counter(f"job-{entry['prompt'].split()[-1]}" for entry in simulator.ledger))


def test_rerun_in_place_pays_only_for_failed_jobs(first: Path, simulator: SimulatorProcess) -> None:
    """
    A rerun submits the failed job and downloads the undelivered one; uncertain and moderated jobs are skipped.
    """
    before = paid(simulator)

    done = runner("rerun", first)

    assert {**before, "job-1": 2} == paid(simulator)
    assert {**STATES, "job-1": "succeeded", "job-2": "succeeded"} == states(first), done.stderr
    attempts = results_by_id(first)["job-1"]["attempts"]
    assert [(1, "accepted"), (2, "accepted")] == [(a["number"], a["outcome"]) for a in attempts]
    assert 4 == done.returncode


def test_rerun_of_a_class(first: Path, simulator: SimulatorProcess) -> None:
    """
    `--class moderation` submits the jobs that moderation refused, and no others.
    """
    runner("rerun", first, "--class", "moderation")

    assert {**dict.fromkeys(STATES, 1), "job-3": 2} == paid(simulator)
    assert {**STATES, "job-3": "succeeded"} == states(first)


def test_dry_run_changes_nothing(first: Path, simulator: SimulatorProcess) -> None:
    """
    `--dry-run` submits nothing and changes no state.
    """
    done = runner("rerun", first, "--dry-run")

    assert 0 == done.returncode
    assert STATES == states(first)
    assert dict.fromkeys(STATES, 1) == paid(simulator)


def test_failed_yaml_runs_unchanged(first: Path, simulator: SimulatorProcess) -> None:
    """
    failed.yaml submits failed jobs, downloads paid videos, and leaves out uncertain and refused jobs.
    """
    done = runner("run", first / "failed.yaml", "-o", first.parent / "again")

    counts = paid(simulator)
    assert {"job-1": 2} == {job_id: count for job_id, count in counts.items() if count > 1}
    assert "succeeded" == states(first.parent / "again")["job-2"], done.stderr
    assert {"job-1", "job-2"} == states(first.parent / "again").keys()


def test_same_command_on_a_finished_run_submits_nothing(first: Path, simulator: SimulatorProcess) -> None:
    """
    The same command on a finished run with failures submits nothing and returns the same exit code.
    """
    before = (first / "results.jsonl").read_bytes()

    done = runner("run", first.parent / "chain.yaml", "-o", first)

    assert 4 == done.returncode
    assert dict.fromkeys(STATES, 1) == paid(simulator)
    assert {**STATES, "job-2": "succeeded"} == states(first)
    assert before != (first / "results.jsonl").read_bytes()


def test_throttled_tries_stay_in_the_history(tmp_path: Path) -> None:
    """
    The attempts and the summary of a job that was throttled twice show it; the job was paid for once.
    """
    scenario = (
        "version: 1\ngenerate_s: 0.1\nrules:\n  - {match: {nth: 1}, submit: {fault: throttled, times: 2}}\n"
    )
    with run_simulator(tmp_path, scenario) as simulator:
        manifest = tmp_path / "throttled.yaml"
        manifest.write_text(
            MANIFEST.format(base_url=simulator.base_url).replace("repeat: 8", "repeat: 1"), encoding="utf-8"
        )
        done = runner("run", manifest, "-o", tmp_path / "out", "--json")

        line = results_by_id(tmp_path / "out")["job-1"]
        assert ["throttled", "throttled", "accepted"] == [one["outcome"] for one in line["attempts"]], (
            done.stderr
        )
        assert '"throttled":2' in done.stdout
        assert {"job-1": 1} == paid(simulator)


def test_rerun_on_another_machine_comes_home(
    first: Path, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """
    A rerun of a results file starts a new run that knows the old tasks; a second rerun does nothing.

    `--into` unites the attempts and copies the files; a second time, nothing changes. What the rerun paid for and
    whose file did not come along is downloaded again, and never paid for again.
    """
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(first / "results.jsonl", away)
    first.rename(tmp_path / "another machine")

    arguments = ("rerun", away / "results.jsonl", "-o", away / "second")
    refused = runner(*arguments)
    done = runner(*arguments, "--base-url", simulator.base_url)
    again = runner(*arguments, POWERTOKENS_BASE_URL=simulator.base_url)

    assert 2 == refused.returncode, refused.stderr
    assert {**dict.fromkeys(STATES, 1), "job-1": 2} == paid(simulator)
    assert {"job-1": "succeeded", "job-2": "succeeded", "job-3": "failed", "job-4": "uncertain"} == states(
        away / "second"
    ), done.stderr
    assert (4, 4) == (done.returncode, again.returncode)

    (tmp_path / "another machine").rename(first)
    before = paid(simulator)
    (away / "second" / "assets" / "job-2.mp4").unlink()

    brought = runner("rerun", away / "second" / "results.jsonl", "--into", first)
    home, elsewhere = results_by_id(first), results_by_id(away / "second")
    resumed = runner("resume", first)
    again = runner("rerun", away / "second", "--into", first)

    assert (0, 0, 4) == (brought.returncode, again.returncode, resumed.returncode), brought.stderr
    assert ("succeeded", "undelivered") == (home["job-1"]["status"], home["job-2"]["status"])
    assert [1, 2] == [attempt["number"] for attempt in home["job-1"]["attempts"]]
    assert {**STATES, "job-1": "succeeded", "job-2": "succeeded"} == states(first)
    for costs in (home, elsewhere, results_by_id(first)):
        # Both attempts at the first job were charged, and one at the second.
        assert ["0.40", "0.20"] == [costs[job]["cost"]["settled"] for job in ("job-1", "job-2")]
    assert (first / "assets" / "job-1.mp4").is_file()
    assert before == paid(simulator)
    assert "0 jobs got further" in again.stdout


def test_another_file_of_a_run_leads_to_the_right_one(first: Path) -> None:
    """A report or a manifest in place of results is a usage error, and the hint is the command that was meant."""
    hints = {"report.html": "runner rerun", "summary.json": "runner rerun", "failed.yaml": "runner run"}
    for name, hint in hints.items():
        refused = runner("rerun", first / name)

        assert 2 == refused.returncode
        assert f"{hint} {first}" in refused.stderr
