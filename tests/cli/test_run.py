"""`runner run` and `runner resume` against the simulator: what is written, and what is said."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.cli.console import show_bug
from tests.cli.command import Ran, runner

MANIFEST = """
version: 1
name: kittens
jobs:
  - id: job-${n}
    repeat: 3
    request: {model: seedance-1-0-pro-250528, prompt: '${what} ${n}', seconds: 4, size: 480p}
vars: {what: kitten}
"""

SCENARIO = """
version: 1
generate_s: [0.1, 0.2]
rules:
  - {name: hostile, match: {prompt: 'kitten 2'},
     task: {end: failed, message: "\\e[31m[bold]bad[/bold]\\e]0;title\\a"}}
  - {name: in doubt, match: {prompt: 'kitten 3'}, submit: {fault: reset, created: true}}
"""


QUICK = "version: 1\ngenerate_s: [0.1, 0.2]\n"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a manifest and a scenario in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kittens.yaml").write_text(MANIFEST)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path


def run(*words: object) -> Ran:
    """Run the manifest against the simulator, by a scenario without trouble unless another is named."""
    scenario = () if "--scenario" in words else ("--scenario", "quick.yaml")
    return runner("run", "kittens.yaml", "--simulate", *scenario, *words)


def test_run_ends_with_a_summary_and_again_does_nothing(desk: Path) -> None:
    """
    The default directory of a rehearsal is its own; the same command again says in a line that all is done.
    """
    first, again = run("--json"), run("--json")

    summary = json.loads(first.out)
    assert (0, 3, "simulator") == (first.code, summary["by_status"]["succeeded"], summary["gateway"])
    assert (0, str(Path("output/kittens-simulated"))) == (summary["exit_code"], summary["run_dir"])
    assert 1 == first.out.count("\n")
    assert "3 of 3 jobs succeeded" in first.err
    assert (0, "kittens: nothing to do, all 3 jobs succeeded\n") == (again.code, again.err)
    assert summary == json.loads(again.out)
    lines = (desk / "output/kittens-simulated/results.jsonl").read_text().splitlines()
    assert {"simulator"} == {json.loads(line)["gateway"] for line in lines}


def test_ending_says_what_failed_why_and_what_to_do(desk: Path) -> None:
    """
    One screen: each class with an example and advice, jobs in doubt with the three commands, and the way on.
    """
    done = run("--scenario", "scenario.yaml", "-o", "a dir", "--var", "what=kitten")

    assert 4 == done.code
    assert "1 remote_failed, such as job-2: " in done.err
    assert "submits it as a new, paid attempt" in " ".join(done.err.split())
    assert "job-3 sent " in done.err
    assert "with key " in done.err
    for choice in ("--task-id TASK_ID", "--not-submitted", "--give-up"):
        assert f"runner resolve 'a dir' job-3 {choice}" in done.err
    assert "runner rerun 'a dir' --scenario scenario.yaml" in done.err
    assert "failed.yaml" in done.err


def test_what_the_api_says_can_not_paint_the_terminal(desk: Path) -> None:
    """
    Escape sequences go, and markup stays text.
    """
    done = run("--scenario", "scenario.yaml", "-v")

    assert "\x1b" not in done.err
    assert "[bold]bad[/bold]" in done.err


def test_quiet_says_only_how_it_ended(desk: Path) -> None:
    """
    `--quiet` leaves a line at the end.
    """
    done = run("--quiet")

    assert ["kittens: 3 of 3 jobs succeeded"] == [line.split(",")[0] for line in done.err.splitlines()]


def test_log_and_metrics_files(desk: Path) -> None:
    """
    The log holds an object a line, one for every job that ended; metrics are written at the end.
    """
    done = run("--scenario", "scenario.yaml", "--log-file", "log.jsonl", "--metrics-file", "run.prom")

    entries = [json.loads(line) for line in (desk / "log.jsonl").read_text().splitlines()]
    ended = {entry["job_id"]: entry["status"] for entry in entries if entry["event"] == "job_ended"}
    assert {"job-1": "succeeded", "job-2": "failed", "job-3": "uncertain"} == ended
    assert all("at" in entry for entry in entries)
    metrics = (desk / "run.prom").read_text()
    assert f'runner_run_exit_code{{run="kittens"}} {done.code}' in metrics


def test_files_that_can_not_be_written(desk: Path) -> None:
    """
    A log that can't be opened is refused at once; metrics that can't be written change nothing.
    """
    refused = run("--log-file", "absent/log.jsonl")
    done = run("--metrics-file", "absent/run.prom")

    assert (2, True) == (refused.code, "absent/log.jsonl can't be written" in refused.err)
    assert (0, True) == (done.code, "the metrics could not be written" in done.err)


def test_date_in_the_run_directory(desk: Path) -> None:
    """
    ${date} in -o is today in UTC, also for plan.
    """
    before = datetime.now(UTC).date().isoformat()
    done = run("-o", "nights/${date}", "--limit", "1")
    after = datetime.now(UTC).date().isoformat()

    assert 0 == done.code
    assert {path.name for path in (desk / "nights").iterdir()} <= {before, after}


@pytest.mark.slow
def test_limit_and_job_leave_the_rest_for_resume(desk: Path) -> None:
    """
    What a run was not to submit is pending, and `resume` submits it without the manifest.
    """
    limited = run("-o", "out", "--limit", "1")
    one = runner("resume", "out", "--job", "*-3")
    (desk / "kittens.yaml").unlink()
    rest = runner("resume", "out", "--json")

    assert "2 pending" in limited.err
    assert "1 pending" in one.err
    assert 3 == json.loads(rest.out)["by_status"]["succeeded"]


def test_real_and_simulated_runs_are_kept_apart(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A directory of a rehearsal is refused to a real run; a scenario is refused to a real run's directory.
    """
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-not-used-anywhere")
    run("-o", "out")

    done = runner("run", "kittens.yaml", "-o", "out")

    assert (2, True) == (done.code, "holds a simulated run" in done.err)


def test_series_needs_a_date_in_its_name(desk: Path) -> None:
    """
    Older runs are deleted only where a date tells the series; else the command is refused before it begins.
    """
    done = run("--keep-runs", "2")

    assert (2, True) == (done.code, "${date}" in done.err)
    assert not (desk / "output").exists()


def test_bug_of_ours_has_its_trace_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A bug is a short message with the place of its trace; the trace itself is shown only with -v, without keys.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bug = KeyError("sk-secret-0123456789")
    bug.__traceback__ = None

    codes = show_bug(bug, ["run", "x"]), show_bug(bug, ["run", "x", "-v"])

    said = capsys.readouterr().err
    kept = [path.read_text() for path in tmp_path.glob("runner-bug-*.txt")]
    assert (3, 3) == codes
    assert (2, 2) == (said.count("error[bug]"), len(kept))
    assert all("sk-secret" not in text for text in (said, *kept))
    assert 1 == said.count("\nKeyError") + said.startswith("KeyError")
