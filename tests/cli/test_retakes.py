"""`rerun --verdict reject`: a new, paid take of what was rejected, once for each verdict, with the old one beside it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import CommandResult, runner
from tests.media.samples import png

MANIFEST = """
version: 1
name: kittens
jobs:
  - id: ${n}
    matrix: {n: [a, b, c]}
    request: {model: seedance-1-5-pro-251215, prompt: 'kitten ${n}', size: 480p, seconds: 4, seed: 7}
  - id: d
    request: {model: seedance-1-5-pro-251215, prompt: kitten d, size: 480p, seconds: 4}
"""
QUICK = ("--simulate", "--scenario", "scenario.yaml")
EARLY, LATE = "2026-01-01T00:00:00.000Z", "2126-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run four jobs with the simulator."""
    monkeypatch.chdir(tmp_path)
    Path("scenario.yaml").write_text("version: 1\ngenerate_s: [0, 0]\n")
    Path("m.yaml").write_text(MANIFEST)
    done = runner("run", "m.yaml", "-o", "out", *QUICK)
    assert 0 == done.exit_code, done.stderr
    return Path("out")


def judge(*verdicts: tuple[str, str, str]) -> None:
    """Append verdicts: job, verdict and time."""
    with Path("out/verdicts.jsonl").open("a") as file:
        for job_id, verdict, at in verdicts:
            file.write(json.dumps({"job_id": job_id, "verdict": verdict, "at": at}) + "\n")


def retake(*options: str) -> CommandResult:
    """Make new takes of what was rejected."""
    return runner("rerun", "out", "--verdict", "reject", *QUICK, *options)


def lines() -> dict[str, Any]:
    """Read the results."""
    return {
        line["job_id"]: line for line in map(json.loads, Path("out/results.jsonl").read_text().splitlines())
    }


def paid() -> dict[str, int]:
    """Count the takes of each job."""
    return {job_id: line["takes"] for job_id, line in lines().items()}


def test_a_rejected_video_is_made_anew_and_kept() -> None:
    """Only that job is paid for again; both files are there, and the line names the old take after the new one."""
    judge(("a", "reject", LATE), ("b", "reject", EARLY), ("b", "keep", EARLY), ("nobody", "reject", LATE))
    before = Path("out/assets/a.mp4").read_bytes()
    old = lines()["a"]

    done = retake()

    assert 0 == done.exit_code, done.stderr
    assert "submit 1: new, paid attempts" in done.stderr
    assert {"a": 2, "b": 1, "c": 1, "d": 1} == paid()
    line = lines()["a"]
    assert ["assets/a.mp4", "assets/a~take1.mp4"] == [asset["path"] for asset in line["assets"]]
    assert [None, 1] == [asset.get("take") for asset in line["assets"]]
    assert old["assets"][0]["sha256"] == line["assets"][1]["sha256"]
    assert before == Path("out/assets/a~take1.mp4").read_bytes()
    assert ("succeeded", 2) == (line["status"], len({attempt["task_id"] for attempt in line["attempts"]}))


@pytest.mark.slow
def test_a_verdict_is_paid_for_once() -> None:
    """The same verdict leads to no second take; a new one does, and every old take is kept."""
    judge(("a", "reject", EARLY))
    assert 0 == retake().exit_code
    again = retake()
    assert (0, 2) == (again.exit_code, paid()["a"])
    assert "nothing to rerun" in again.stderr

    # Its time is later than that of the new take, whatever clock it is by: it was acted on all the same.
    judge(("a", "reject", LATE))
    assert [0, 0] == [retake().exit_code, retake().exit_code]
    assert 3 == paid()["a"]
    assert ["assets/a.mp4", "assets/a~take2.mp4", "assets/a~take1.mp4"] == [
        asset["path"] for asset in lines()["a"]["assets"]
    ]
    assert all(Path("out", asset["path"]).exists() for asset in lines()["a"]["assets"])


def test_nothing_else_makes_a_new_take() -> None:
    """Neither `run`, `resume` nor a plain `rerun` pays for a job that succeeded, whatever its verdict."""
    judge(("a", "reject", LATE))
    for command in (["run", "m.yaml", "-o", "out", *QUICK], ["resume", "out"], ["rerun", "out", *QUICK]):
        assert 0 == runner(*command).exit_code
    assert 0 == retake("--where", "prompt=kitten b").exit_code
    assert 0 == retake("--job", "[!a]").exit_code
    dry = retake("--dry-run", "--job", "[!b]")

    assert "submit 1: new, paid attempts" in dry.stdout
    assert dict.fromkeys("abcd", 1) == paid()
    assert not list(Path("out/assets").glob("*~take*"))


def test_a_new_seed_is_drawn_where_there_is_one() -> None:
    """The request that made the old take stays with it; to the manifest the job is the same."""
    judge(("a", "reject", LATE), ("d", "reject", LATE))
    assert 0 == retake("--new-seed").exit_code

    line = lines()["a"]
    assert 7 != line["request"]["seed"]
    # Less happens in one of two thousand draws.
    assert 2**20 <= line["request"]["seed"] < 2**31
    assert [None, 7] == [asset.get("request", {}).get("seed") for asset in line["assets"]]
    assert len({asset["sha256"] for asset in line["assets"]}) == 2
    assert "seed" not in lines()["d"]["request"]
    assert 0 == runner("run", "m.yaml", "-o", "out", *QUICK).exit_code
    assert {"a": 2, "b": 1, "c": 1, "d": 2} == paid()


@pytest.mark.slow
def test_a_new_seed_outlives_the_manifest() -> None:
    """A take that is not submitted yet keeps its seed when the manifest is run, also with a file that has moved."""
    manifest = """
version: 1
name: kittens
jobs:
  - {id: a, request: {model: seedance-1-0-pro-250528, prompt: kitten, image: IMAGE, seconds: 4, seed: 7}}
"""
    for name in ("one.png", "two.png"):
        Path(name).write_bytes(png(640, 480))
    Path("m.yaml").write_text(manifest.replace("IMAGE", "./one.png"))
    assert 0 == runner("run", "m.yaml", "-o", "files", *QUICK).exit_code
    Path("files/verdicts.jsonl").write_text(
        json.dumps({"job_id": "a", "verdict": "reject", "at": LATE}) + "\n"
    )
    assert (
        6 == runner("rerun", "files", "--verdict", "reject", "--new-seed", "--limit", "0", *QUICK).exit_code
    )

    Path("one.png").unlink()
    Path("m.yaml").write_text(manifest.replace("IMAGE", "./two.png"))
    done = runner("run", "m.yaml", "-o", "files", *QUICK)

    assert 0 == done.exit_code, done.stderr
    (line,) = map(json.loads, Path("files/results.jsonl").read_text().splitlines())
    assert (2, True) == (line["takes"], line["request"]["seed"] != 7)
    assert [None, 7] == [asset.get("request", {}).get("seed") for asset in line["assets"]]


def test_checks_reject_too_unless_a_person_keeps() -> None:
    """Without a person's word that of the checks counts; and it is about one take."""
    with sqlite3.connect("out/run.db") as connection:
        row = {
            "checks": {"black": {"ok": False}},
            "warnings": [],
            "verdict": {"value": "reject", "by": "checks", "why": "black"},
        }
        connection.execute(
            "INSERT INTO checks SELECT seq, attempt, ? FROM jobs WHERE job_id IN ('a', 'b')",
            (json.dumps(row),),
        )
    connection.close()
    judge(("b", "keep", EARLY))

    assert 0 == retake().exit_code
    assert 0 == retake().exit_code
    assert {"a": 2, "b": 1, "c": 1, "d": 1} == paid()


def test_an_old_take_stays_if_the_new_one_fails() -> None:
    """The job has failed, and its old video is there under its own name, with what is known of it."""
    Path("scenario.yaml").write_text(
        "version: 1\ngenerate_s: [0, 0]\nrules: [{name: all, task: {end: failed}}]\n"
    )
    judge(("a", "reject", LATE))

    assert 1 == retake().exit_code
    line = lines()["a"]
    assert ("failed", ["assets/a.mp4"]) == (line["status"], [asset["path"] for asset in line["assets"]])
    assert Path("out/assets/a.mp4").exists()


@pytest.mark.slow
def test_takes_that_are_not_submitted_yet_are_said_everywhere() -> None:
    """After a limit, the end of the run, the status and an export tell why such a job has a video and none."""
    judge(("a", "reject", LATE), ("b", "reject", LATE))
    limited = retake("--limit", "1")
    exported = runner("export", "out", "dataset", "--format", "webdataset")

    waiting = "1 of the pending jobs waits for a new take; its earlier video is kept, and not exported"
    assert (6, 0) == (limited.exit_code, exported.exit_code)
    assert (f"  {waiting}" in limited.stderr, f"note: {waiting}" in exported.stderr) == (True, True)
    assert waiting in runner("status", "out").stdout
    assert 1 == json.loads(runner("status", "out", "--json").stdout)["awaiting_take"]
    assert "runner resume out" in limited.stderr.splitlines()[-1]
    assert 0 == runner("resume", "out", *QUICK[1:]).exit_code
    assert 0 == json.loads(runner("status", "out", "--json").stdout)["awaiting_take"]


def test_a_video_that_was_deleted_has_no_old_take() -> None:
    """There is nothing to keep, and a new take is made all the same."""
    judge(("a", "reject", LATE))
    Path("out/assets/a.mp4").unlink()

    assert 0 == retake().exit_code
    assert 2 == paid()["a"]


def test_what_a_budget_can_not_hold_changes_nothing() -> None:
    """A take that can't be priced is refused before the job is touched, so the verdict still leads to one."""
    judge(("a", "reject", LATE))
    refused = retake("--max-cost", "5")

    assert (2, True) == (refused.exit_code, "has no known price" in refused.stderr), refused.stderr
    assert dict.fromkeys("abcd", 1) == paid()
    assert 0 == retake().exit_code
    assert 2 == paid()["a"]


def test_what_does_not_go_together() -> None:
    """Verdicts are about jobs of a run directory that succeeded."""
    for options in (("--status", "failed"), ("--class", "lost"), ("-o", "elsewhere")):
        assert 2 == retake(*options).exit_code
    assert 2 == runner("rerun", "out/results.jsonl", "--verdict", "reject").exit_code
    assert 2 == runner("rerun", "out", "--new-seed", *QUICK).exit_code
    Path("out/verdicts.jsonl").write_text('{"job_id": "a", "verdict": "maybe"}\n')
    broken = retake()
    assert (2, True) == (broken.exit_code, "verdicts.jsonl:1 is not a verdict" in broken.stderr)
    assert dict.fromkeys("abcd", 1) == paid()
