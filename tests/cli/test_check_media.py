"""Checks of videos beside a run, and later: what the results say, and what is missing without the extra."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checks.clips import make_clip
from tests.cli.command import CommandResult, runner

MANIFEST = """
version: 1
name: kittens
checks: [black, frozen, silent, duration, size, fps, near_duplicate]
reject: [black]
{more}
jobs:
  - id: ${{n}}
    matrix: {{n: [a, b]}}
    request: {{model: seedance-1-5-pro-251215, prompt: 'kitten ${{n}}', size: 480p, seconds: 4}}
"""
SCENARIO = "version: 1\ngenerate_s: [0, 0]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a scenario that takes no time."""
    monkeypatch.chdir(tmp_path)
    Path("scenario.yaml").write_text(SCENARIO)
    return tmp_path


def run(more: str = "") -> CommandResult:
    """Run two jobs with the simulator."""
    Path("m.yaml").write_text(MANIFEST.format(more=more))
    return runner("run", "m.yaml", "-o", "out", "--simulate", "--scenario", "scenario.yaml")


def lines() -> dict[str, Any]:
    """Read the results."""
    return {
        line["job_id"]: line for line in map(json.loads, Path("out/results.jsonl").read_text().splitlines())
    }


@pytest.mark.slow
def test_videos_are_checked_beside_a_run() -> None:
    """The numbers of each check are in the results, with what the command answered; nothing is wrong with the videos."""
    pytest.importorskip("av")
    code = "import json, sys; print(json.dumps({'words': len(json.load(sys.stdin)['job_id'])}))"
    more = f"on_asset: {{command: {json.dumps([sys.executable, '-c', code])}, timeout: 30s, at_once: 1}}"

    done = run(more)

    assert 0 == done.exit_code, done.stderr
    for line in lines().values():
        checks = line["checks"]
        assert 1 == checks.pop("words")
        assert ["black", "duration", "fps", "frozen", "near_duplicate", "silent", "size"] == sorted(checks)
        assert all(found["ok"] for found in checks.values())
        assert 4.0 == checks["black"]["duration_s"] == checks["duration"]["duration_s"]
        assert (None, []) == (line["verdict"], line["warnings"])
        video = line["assets"][0]
        assert ("h264", 24.0, True) == (video["codec"], video["fps"], video["has_sound"])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_whole_run_is_checked_later() -> None:
    """A video that is black is rejected, and its job's state and exit code stay as they are; what was found is shown."""
    pytest.importorskip("av")
    assert 0 == run("on_asset: ['true']").exit_code
    make_clip("black", Path("out/assets/a.mp4"))

    done = runner("check-media", "out")
    as_json = json.loads(runner("check-media", "out", "--json").stdout)

    assert (0, "a: the video is black for 4s of 4s") == (done.exit_code, done.stdout.splitlines()[0])
    assert "2 videos checked: 1 black, 1 frozen\n" in done.stdout
    assert "rejected: 1; for a new, paid take of each: runner rerun out --verdict reject\n" in done.stdout
    assert {"black": 1, "frozen": 1} == as_json["failed"]
    assert (2, 1, 0, ["a"]) == (
        as_json["videos"],
        as_json["rejected"],
        as_json["not_checked"],
        list(as_json["jobs"]),
    )
    line = lines()["a"]
    assert ("succeeded", {"value": "reject", "by": "checks", "why": "black"}) == (
        line["status"],
        line["verdict"],
    )
    assert "the video is black for 4s of 4s" in line["warnings"]
    assert lines()["b"]["verdict"] is None
    assert 0 == runner("run", "m.yaml", "-o", "out", "--simulate").exit_code


@pytest.mark.slow
def test_a_file_that_is_not_a_video_is_a_warning() -> None:
    """What can't be checked is reported, and the rest of the run is checked."""
    pytest.importorskip("av")
    assert 0 == run().exit_code
    Path("out/assets/a.mp4").write_bytes(b"damaged")
    Path("out/assets/b.mp4").unlink()

    as_json = json.loads(runner("check-media", "out", "--json").stdout)

    assert 2 == as_json["not_checked"]
    assert as_json["jobs"]["a"][0].startswith("the video was not checked: it can't be decoded")


def test_without_the_extra_the_rest_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run says once what it can't check, and checks what the files state; `check-media` needs the extra."""
    monkeypatch.setitem(sys.modules, "av", None)

    done = run()

    assert 0 == done.exit_code
    assert 1 == done.stderr.count("videos are not checked for black, frozen, near_duplicate")
    assert "pip install '.[media]'" in done.stderr
    assert {"silent", "duration", "size", "fps"} == lines()["a"]["checks"].keys()
    later = runner("check-media", "out")
    assert (2, True) == (later.exit_code, "pip install '.[media]'" in later.stderr)


@pytest.mark.slow
def test_what_an_earlier_process_left_unchecked_is_checked_by_the_next_one() -> None:
    """A run of the same manifest, and resume, check what is left, once; jobs that were not chosen wait."""
    pytest.importorskip("av")
    Path("m.yaml").write_text(re.sub("checks:.*|reject:.*", "", MANIFEST.format(more="")))
    assert 0 == runner("run", "m.yaml", "-o", "out", "--simulate", "--scenario", "scenario.yaml").exit_code
    # Two videos that are the same file, which is found without looking at them.
    shutil.copy("out/assets/a.mp4", "out/assets/b.mp4")
    with sqlite3.connect("out/run.db") as connection:
        first = "FROM assets WHERE path = 'assets/a.mp4'"
        connection.execute(f"UPDATE assets SET (sha256, bytes) = (SELECT sha256, bytes {first})")
        connection.execute("DELETE FROM meta WHERE key = 'finished'")
    connection.close()
    assert 0 == runner("resume", "out").exit_code
    assert lines()["a"]["checks"] is None
    assert ["duplicate"] == list(lines()["b"]["checks"])
    code = "open('asked', 'a').write('x')"
    Path("m.yaml").write_text(MANIFEST.format(more=f"on_asset: {json.dumps([sys.executable, '-c', code])}"))

    counts = []
    for command in (
        ["run", "m.yaml", "--simulate", "-o", "out", "--job", "b"],
        ["resume", "out"],
        ["resume", "out"],
    ):
        done = runner(*command)
        assert 0 == done.exit_code, done.stderr
        counts.append((Path("asked").read_text(), [len(line["checks"] or ()) for line in lines().values()]))

    assert [("x", [0, 8]), ("xx", [7, 8]), ("xx", [7, 8])] == counts


@pytest.mark.slow
def test_a_command_begins_in_the_folder_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beside the manifest is found, wherever the run was started."""
    Path("score.sh").write_text("echo '{\"score\": 1}'")
    Path("m.yaml").write_text(MANIFEST.format(more="on_asset: [sh, score.sh]"))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")

    done = runner("run", "../m.yaml", "-o", "../out", "--simulate", "--scenario", "../scenario.yaml")

    monkeypatch.chdir("..")
    assert 0 == done.exit_code, done.stderr
    assert (1, []) == (lines()["a"]["checks"]["score"], lines()["a"]["warnings"])


@pytest.mark.slow
def test_a_command_that_fails_is_a_warning() -> None:
    """The job has succeeded all the same, and the sentence says which command."""
    done = run("on_asset: [sh, -c, 'exit 3']")

    assert 0 == done.exit_code
    assert ["on_asset: the command 'sh' ended with 3"] == lines()["a"]["warnings"]
    assert "succeeded" == lines()["a"]["status"]


@pytest.mark.slow
def test_a_command_of_a_foreign_directory_needs_trust() -> None:
    """A directory that came from somewhere else starts no command, unless the user says so."""
    assert 0 == run("on_asset: [touch, started]").exit_code
    for again, manifest in enumerate((True, False, False)):
        Path("started").unlink(missing_ok=True)
        if not manifest:
            Path("m.yaml").unlink(missing_ok=True)
        Path("out/assets/a.mp4").unlink()
        options = ["--trust"] if again == 2 else []
        done = runner("resume", "out", "--verify", *options)

        assert 0 == done.exit_code, done.stderr
        assert (again != 1) == Path("started").exists(), done.stderr
        assert (again == 1) == ("'touch' is not started" in done.stderr)
