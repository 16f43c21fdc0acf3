"""Running again from a run, from its results on another machine, and from failed.yaml: only what failed is paid anew."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.theatre import Theatre, lines, playing, runner

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
    request: {{model: seedance-1-0-pro-250528, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}
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
  - {name: in doubt, match: {prompt: 'kitten 4'}, submit: {fault: reset, created: true}}
"""
# The first eight jobs are those of the manifest: what is submitted anew meets no rule that counts.

STATES = {
    "job-1": "failed",
    "job-2": "undelivered",
    "job-3": "failed",
    "job-4": "uncertain",
    **{f"job-{n}": "succeeded" for n in range(5, 9)},
}


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    """Serve the scenario."""
    with playing(tmp_path, SCENARIO) as played:
        (tmp_path / "chain.yaml").write_text(MANIFEST.format(base_url=played.base_url), encoding="utf-8")
        yield played


@pytest.fixture
def first(tmp_path: Path, theatre: Theatre) -> Path:
    """Run the manifest once: some jobs fail, each in its own way."""
    run_dir = tmp_path / "first"
    done = runner("run", tmp_path / "chain.yaml", "-o", run_dir)
    assert (4, STATES) == (done.returncode, states(run_dir)), done.stderr
    return run_dir


def states(run_dir: Path) -> dict[str, str]:
    """Read the state of each job from the results."""
    return {job_id: line["status"] for job_id, line in lines(run_dir).items()}


def paid(theatre: Theatre) -> dict[str, int]:
    """Count the accepted POSTs of each job."""
    return dict(Counter(f"job-{entry['prompt'].split()[-1]}" for entry in theatre.ledger))


def test_rerun_in_place_pays_for_what_failed_alone(first: Path, theatre: Theatre) -> None:
    """
    A rerun submits the failed job and fetches the undelivered one; doubt and moderation are left alone.
    """
    before = paid(theatre)

    done = runner("rerun", first)

    assert {**before, "job-1": 2} == paid(theatre)
    assert {**STATES, "job-1": "succeeded", "job-2": "succeeded"} == states(first), done.stderr
    attempts = lines(first)["job-1"]["attempts"]
    assert [(1, "accepted"), (2, "accepted")] == [(a["number"], a["outcome"]) for a in attempts]
    assert 4 == done.returncode


def test_rerun_of_a_class_that_is_named(first: Path, theatre: Theatre) -> None:
    """
    Jobs that moderation refused are submitted again where their class is named, and no others.
    """
    runner("rerun", first, "--class", "moderation")

    assert {**dict.fromkeys(STATES, 1), "job-3": 2} == paid(theatre)
    assert {**STATES, "job-3": "succeeded"} == states(first)


def test_dry_run_changes_nothing(first: Path, theatre: Theatre) -> None:
    """
    A rerun that is only shown says what it would do, and does not.
    """
    done = runner("rerun", first, "--dry-run")

    assert 0 == done.returncode
    assert STATES == states(first)
    assert dict.fromkeys(STATES, 1) == paid(theatre)


def test_rerun_from_results_on_another_machine(first: Path, theatre: Theatre, tmp_path: Path) -> None:
    """
    From the results alone a new run is made that knows the old tasks; a second call does nothing more.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(first / "results.jsonl", elsewhere)
    shutil.rmtree(first)

    done = runner("rerun", elsewhere / "results.jsonl", "-o", elsewhere / "second")
    again = runner("rerun", elsewhere / "results.jsonl", "-o", elsewhere / "second")

    assert {**dict.fromkeys(STATES, 1), "job-1": 2} == paid(theatre)
    assert {"job-1": "succeeded", "job-2": "succeeded", "job-3": "failed", "job-4": "uncertain"} == states(
        elsewhere / "second"
    ), done.stderr
    assert (4, 4) == (done.returncode, again.returncode)


def test_failed_yaml_runs_as_it_is(first: Path, theatre: Theatre) -> None:
    """
    failed.yaml submits what failed, fetches what was paid for, and leaves out what is in doubt.
    """
    done = runner("run", first / "failed.yaml", "-o", first.parent / "again")

    counts = paid(theatre)
    assert {"job-1": 2, "job-3": 2} == {job_id: count for job_id, count in counts.items() if count > 1}
    assert "succeeded" == states(first.parent / "again")["job-2"], done.stderr
    assert "job-4" not in states(first.parent / "again")


def test_same_command_after_everything_is_done_does_nothing(first: Path, theatre: Theatre) -> None:
    """
    The run again, on a finished run with failures, submits nothing and tells the state by its exit code.
    """
    before = (first / "results.jsonl").read_bytes()

    done = runner("run", first.parent / "chain.yaml", "-o", first)

    assert 4 == done.returncode
    assert dict.fromkeys(STATES, 1) == paid(theatre)
    assert {**STATES, "job-2": "succeeded"} == states(first)
    assert before != (first / "results.jsonl").read_bytes()


def test_throttled_tries_stay_in_the_history(tmp_path: Path) -> None:
    """
    A job that was throttled twice tells so in its attempts, and in the summary; it was paid for once.
    """
    scenario = (
        "version: 1\ngenerate_s: 0.1\nrules:\n  - {match: {nth: 1}, submit: {fault: throttled, times: 2}}\n"
    )
    with playing(tmp_path, scenario) as theatre:
        manifest = tmp_path / "throttled.yaml"
        manifest.write_text(
            MANIFEST.format(base_url=theatre.base_url).replace("repeat: 8", "repeat: 1"), encoding="utf-8"
        )
        done = runner("run", manifest, "-o", tmp_path / "out", "--json")

        line = lines(tmp_path / "out")["job-1"]
        assert ["throttled", "throttled", "accepted"] == [one["outcome"] for one in line["attempts"]], (
            done.stderr
        )
        assert '"throttled":2' in done.stdout
        assert {"job-1": 1} == paid(theatre)
