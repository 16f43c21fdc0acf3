"""`runner rerun` from a results file alone: what it submits, takes up, refuses and never guesses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.results.formats import result_line
from runner.simulator.server import Simulator
from tests.cli.command import Ran, runner
from tests.results.records import succeeded

REQUEST = {"model": "seedance-1-0-pro-250528", "prompt": "a kitten", "seconds": "4"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a key set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")
    return tmp_path


def line(job_id: str, status: str, **changes: Any) -> dict[str, Any]:
    """Make a result line of a job that did not succeed."""
    value = result_line(succeeded(job_id), run="kittens", gateway="http://127.0.0.1:9")
    error = {
        "class": "remote_failed",
        "code": None,
        "message": "why",
        "http_status": None,
        "request_id": None,
    }
    value |= {"model": REQUEST["model"], "request": REQUEST, "error": error, "assets": []}
    return {**value, "status": status, **changes}


def write(*lines: Mapping[str, Any]) -> Path:
    """Write a results file."""
    path = Path("results.jsonl")
    path.write_text("".join(json.dumps(value) + "\n" for value in lines))
    return path


def plan(*words: object) -> dict[str, Any]:
    """Ask what a rerun would do."""
    done = runner("rerun", "results.jsonl", "--dry-run", "--json", *words)
    assert 0 == done.code, done.err
    value: dict[str, Any] = json.loads(done.out)
    return value


def states(run_dir: str) -> dict[str, tuple[str, str | None]]:
    """Read the state and the class of each job."""
    lines = map(json.loads, Path(run_dir, "results.jsonl").read_text().splitlines())
    return {value["job_id"]: (value["status"], (value["error"] or {}).get("class")) for value in lines}


def test_each_state_goes_its_own_way() -> None:
    """
    Failed and pending jobs are submitted, tasks are polled and fetched, doubts and refusals are left alone.
    """
    write(
        line("a", "failed"),
        line("b", "pending", task_id=None, attempts=[]),
        line("c", "timed_out"),
        line("d", "undelivered"),
        line("e", "submitted"),
        line("f", "submitting", task_id=None),
        line("g", "failed", error={"class": "lost", "message": "gone"}),
        line("h", "failed", error={"class": "moderation", "message": "no"}),
        line("i", "succeeded", error=None),
        line("j", "submitted", task_id=None),
    )

    expected = {"to_submit": 2, "to_poll": 2, "to_download": 1}
    left_alone = {"lost": 1, "moderation": 1, "uncertain_submit": 2}
    assert {**expected, "left_alone": left_alone} == plan()
    assert not Path("output").exists()


@pytest.mark.parametrize(
    ("words", "to_submit", "to_poll"),
    [
        (("--class", "moderation"), 1, 0),
        (("--status", "timed_out"), 0, 1),
        (("--job", "sky-*"), 1, 0),
        (("--status", "failed", "--job", "nobody"), 0, 0),
    ],
)
def test_choice(words: tuple[str, ...], to_submit: int, to_poll: int) -> None:
    """
    Class, state and pattern choose, as they do in a run directory.
    """
    moderation = {"class": "moderation", "message": "no"}
    write(line("sky-1", "failed"), line("h", "failed", error=moderation), line("t", "timed_out"))

    chosen = plan(*words)

    assert (to_submit, to_poll) == (chosen["to_submit"], chosen["to_poll"])


def test_job_whose_file_is_absent_is_refused_and_the_others_run(gateway: Simulator, folder: Path) -> None:
    """
    A picture that is not on this machine fails its own job, is named, and is never sent as a placeholder, not
    even when its class is asked for.
    """
    absent = f"data:image/png;bytes=9;sha256={'a' * 64};source=/nowhere/a.png"
    request = {**REQUEST, "image": absent}
    write(
        line("absent", "failed", request=request),
        line("inline", "failed", request={**request, "image": f"data:image/png;bytes=9;sha256={'b' * 64}"}),
        line("fine", "failed", request={**REQUEST, "prompt": "fine"}),
    )
    words = (
        "--base-url",
        gateway.base_url,
        "--submit-rate",
        "100/s",
        "--max-runtime",
        "1s",
        "--drain-time",
        "0s",
    )

    done = runner("rerun", "results.jsonl", "-o", "again", *words)
    asked_for = runner("rerun", "again", "--class", "invalid_request", *words)

    assert "'/nowhere/a.png' is not on this machine" in done.err
    assert {("failed", "invalid_request")} == {states("again")[job_id] for job_id in ("absent", "inline")}
    assert ["fine"] == [entry.prompt for entry in gateway.ledger.accepted], asked_for.err


@pytest.mark.parametrize(
    ("gateways", "said"),
    [
        (("http://127.0.0.1:9", "https://api.example.com"), "do not name one gateway"),
        ((None, None), "do not name one gateway (none)"),
        (("simulator", "http://127.0.0.1:9"), "results of a simulated run"),
    ],
)
def test_gateway_that_is_not_clear(gateways: tuple[str | None, str | None], said: str) -> None:
    """
    Where the lines do not name one gateway, none is guessed.
    """
    write(line("a", "failed", gateway=gateways[0]), line("b", "failed", gateway=gateways[1]))

    done = runner("rerun", "results.jsonl")

    assert (2, True) == (done.code, said in done.err), done.err
    assert not Path("output").exists()


@pytest.mark.slow
def test_simulated_results_stay_simulated() -> None:
    """
    Results of a rehearsal are rerun as one, into a directory that says so, without a key.
    """
    write(line("a", "failed", gateway="simulator"))

    done = runner("rerun", "results.jsonl", "-q")
    real = runner("rerun", "results.jsonl", "--base-url", "https://api.example.com")

    assert (0, {"a": ("succeeded", None)}) == (done.code, states("output/kittens-rerun-simulated")), done.err
    assert (2, True) == (real.code, "simulated" in real.err)


def test_one_id_for_different_jobs_is_refused() -> None:
    """
    Where two runs used one id for different requests, neither is left out in silence.
    """
    other = {**line("a", "failed"), "run": "puppies", "request": {"model": "wan2.7-i2v", "prompt": "a puppy"}}
    write(line("a", "failed"), other)

    done = runner("rerun", "results.jsonl")

    assert (2, True) == (done.code, "different jobs with the id 'a'" in done.err)


def test_directory_of_a_manifest_is_not_mixed_with_results() -> None:
    """
    A run that has a manifest takes in no results of another.
    """
    Path("m.yaml").write_text(
        "version: 1\njobs:\n  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: x}}\n"
    )
    runner("run", "m.yaml", "--simulate", "-o", "out")
    write(line("b", "failed", gateway="simulator"))

    done = runner("rerun", "results.jsonl", "-o", "out")

    assert (2, True) == (done.code, "holds the run of m.yaml" in done.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--status", "uncertain"), "runner resolve settles"),
        (("--status", "done"), "no state 'done'"),
        (("--class", "moderatoin"), "did you mean 'moderation'"),
    ],
)
def test_choice_that_is_none(words: tuple[str, ...], said: str) -> None:
    """
    States that no rerun takes up, and words that are none, are refused with what would be right.
    """
    write(line("a", "failed"))

    done: Ran = runner("rerun", "results.jsonl", *words)

    assert (2, True) == (done.code, said in done.err), done.err


def test_results_that_are_not_there_are_said_to_be_missing() -> None:
    """A mistyped name is told as such, with a new directory named or without."""
    done = runner("rerun", "reslts.jsonl", "-o", "again")

    assert 2 == done.code
    assert "there is no run directory reslts.jsonl" in done.err
    assert not Path("again").exists()
