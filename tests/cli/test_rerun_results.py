"""`runner rerun` of a results file: what it submits, polls, downloads, skips and refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.results.formats import result_line
from runner.simulator.server import Simulator
from tests.cli.command import runner
from tests.results.records import succeeded

REQUEST = {"model": "seedance-1-0-pro-250528", "prompt": "a kitten", "seconds": "4"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, and set a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")
    return tmp_path


def line(job_id: str, status: str, **changes: Any) -> dict[str, Any]:
    """Return a result line of a job that did not succeed."""
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


def plan(*options: object) -> dict[str, Any]:
    """Return what a rerun would do."""
    done = runner("rerun", "results.jsonl", "--dry-run", "--json", *options)
    assert 0 == done.exit_code, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def states(run_dir: str) -> dict[str, tuple[str, str | None]]:
    """Read the state and the class of each job."""
    lines = map(json.loads, Path(run_dir, "results.jsonl").read_text().splitlines())
    return {value["job_id"]: (value["status"], (value["error"] or {}).get("class")) for value in lines}


def test_action_for_each_state() -> None:
    """
    Failed and pending jobs are submitted, tasks are polled and downloaded, uncertain and refused jobs are skipped.
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
    ("options", "to_submit", "to_poll"),
    [
        (("--class", "moderation"), 1, 0),
        (("--status", "timed_out"), 0, 1),
        (("--job", "sky-*"), 1, 0),
        (("--status", "failed", "--job", "nobody"), 0, 0),
    ],
)
def test_selection(options: tuple[str, ...], to_submit: int, to_poll: int) -> None:
    """
    Class, state and pattern select jobs as in a run directory.
    """
    moderation = {"class": "moderation", "message": "no"}
    write(line("sky-1", "failed"), line("h", "failed", error=moderation), line("t", "timed_out"))

    planned = plan(*options)

    assert (to_submit, to_poll) == (planned["to_submit"], planned["to_poll"])


@pytest.mark.slow
def test_job_with_a_missing_file_is_refused_and_the_others_run(gateway: Simulator, folder: Path) -> None:
    """
    A job whose picture is not on this machine fails with an error that names the picture; the placeholder is
    never sent, not even if the class of the job is selected.
    """
    absent = f"data:image/png;bytes=9;sha256={'a' * 64};source=/nowhere/a.png"
    request = {**REQUEST, "image": absent}
    write(
        line("absent", "failed", request=request),
        line("inline", "failed", request={**request, "image": f"data:image/png;bytes=9;sha256={'b' * 64}"}),
        line("fine", "failed", request={**REQUEST, "prompt": "fine"}),
    )
    options = (
        "--base-url",
        gateway.base_url,
        "--submit-rate",
        "100/s",
        "--max-runtime",
        "1s",
        "--drain-time",
        "0s",
    )

    done = runner("rerun", "results.jsonl", "-o", "again", *options)
    by_class = runner("rerun", "again", "--class", "invalid_request", *options)

    assert "'/nowhere/a.png' is not on this machine" in done.stderr
    assert {("failed", "invalid_request")} == {states("again")[job_id] for job_id in ("absent", "inline")}
    assert ["fine"] == [entry.prompt for entry in gateway.ledger.accepted], by_class.stderr


@pytest.mark.parametrize(
    ("gateways", "message"),
    [
        (("http://127.0.0.1:9", "https://api.example.com"), "do not name one gateway"),
        ((None, None), "do not name one gateway (none)"),
        (("simulator", "http://127.0.0.1:9"), "results of a simulated run"),
    ],
)
def test_ambiguous_gateway(gateways: tuple[str | None, str | None], message: str) -> None:
    """
    If the lines do not name exactly one gateway, none is guessed.
    """
    write(line("a", "failed", gateway=gateways[0]), line("b", "failed", gateway=gateways[1]))

    done = runner("rerun", "results.jsonl")

    assert 2 == done.exit_code, done.stderr

    assert message in done.stderr
    assert not Path("output").exists()


@pytest.mark.slow
def test_simulated_results_stay_simulated() -> None:
    """
    Results of a simulated run are rerun with the simulator, in a directory named so, without a key.
    """
    write(line("a", "failed", gateway="simulator"))

    done = runner("rerun", "results.jsonl", "-q")
    real = runner("rerun", "results.jsonl", "--base-url", "https://api.example.com")

    assert (0, {"a": ("succeeded", None)}) == (done.exit_code, states("output/kittens-rerun-simulated")), (
        done.stderr
    )
    assert 2 == real.exit_code
    assert "simulated" in real.stderr


def test_one_id_for_different_jobs_is_refused() -> None:
    """
    Two lines with the same id and different requests are an error.
    """
    other = {**line("a", "failed"), "run": "puppies", "request": {"model": "wan2.7-i2v", "prompt": "a puppy"}}
    write(line("a", "failed"), other)

    done = runner("rerun", "results.jsonl")

    assert 2 == done.exit_code

    assert "different jobs with the id 'a'" in done.stderr


@pytest.mark.slow
def test_directory_of_a_manifest_is_not_mixed_with_results() -> None:
    """
    Results can't be rerun in the directory of a run that has a manifest.
    """
    Path("m.yaml").write_text(
        "version: 1\njobs:\n  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: x}}\n"
    )
    runner("run", "m.yaml", "--simulate", "-o", "out")
    write(line("b", "failed", gateway="simulator"))

    done = runner("rerun", "results.jsonl", "-o", "out")

    assert 2 == done.exit_code

    assert f"holds the run of {Path.cwd() / 'm.yaml'}" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--status", "uncertain"), "with: runner resolve"),
        (("--status", "done"), "unknown state 'done'"),
        (("--class", "moderatoin"), "did you mean 'moderation'"),
    ],
)
def test_invalid_selection(options: tuple[str, ...], message: str) -> None:
    """
    States that can't be rerun and unknown options are errors that show the allowed ones.
    """
    write(line("a", "failed"))

    done = runner("rerun", "results.jsonl", *options)

    assert 2 == done.exit_code, done.stderr

    assert message in done.stderr


def test_line_that_is_cut_off_is_told_where_all_others_succeeded() -> None:
    """Nothing is left to rerun of the lines that can be read, and the one that can't may be of a job that failed."""
    path = write(line("a", "succeeded", error=None))
    path.write_text(path.read_text() + '{"schema_version": 1, "run": "kitt')

    for options in (["--dry-run"], []):
        done = runner("rerun", path, *options)
        assert (0, True) == (done.exit_code, "has an incomplete line 2, which is left out" in done.stderr)


def test_missing_results_file() -> None:
    """A file that does not exist is an error, also with -o."""
    done = runner("rerun", "reslts.jsonl", "-o", "again")

    assert 2 == done.exit_code
    assert "the run directory reslts.jsonl does not exist" in done.stderr
    assert not Path("again").exists()


@pytest.mark.slow
def test_a_way_home_that_was_cut_short_begins_again(folder: Path) -> None:
    """
    A file that was copied before the job's end was saved must not look like one of a newer run.db.
    """
    request = "{model: seedance-1-5-pro-251215, prompt: 'A kitten ${n}', seconds: 4, size: 480p}"
    Path("m.yaml").write_text(
        f"version: 1\nname: m\njobs: [{{id: 'j-${{n}}', repeat: 3, request: {request}}}]\n"
    )
    assert 6 == runner("run", "m.yaml", "--simulate", "-o", "home", "--limit", "1").exit_code
    assert 0 == runner("rerun", "home/results.jsonl", "-o", "away").exit_code
    Path("home/assets/j-3.mp4").mkdir()
    assert 0 != runner("rerun", "away/results.jsonl", "--into", "home").exit_code
    assert Path("home/assets/j-3.mp4.part").exists()
    Path("home/assets/j-3.mp4").rmdir()

    again = runner("rerun", "away/results.jsonl", "--into", "home")

    assert 0 == again.exit_code, again.stderr
    assert Path("away/assets/j-3.mp4").read_bytes() == Path("home/assets/j-3.mp4").read_bytes()
    assert 0 == runner("resume", "home").exit_code
