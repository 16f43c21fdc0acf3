"""`runner run` and `runner resume` with the simulator: what they write and what they print."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.command import CommandResult, runner

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
  - {name: answer lost, match: {prompt: 'kitten 3'}, submit: {fault: reset, created: true}}
"""


NO_FAULTS = "version: 1\ngenerate_s: [0.1, 0.2]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a manifest and a scenario."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "kittens.yaml").write_text(MANIFEST)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    (tmp_path / "no-faults.yaml").write_text(NO_FAULTS)
    return tmp_path


def run(*options: object) -> CommandResult:
    """Run the manifest with the simulator, with a scenario without faults unless another is given."""
    scenario = () if "--scenario" in options else ("--scenario", "no-faults.yaml")
    return runner("run", "kittens.yaml", "--simulate", *scenario, *options)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has the policy")
def test_run_is_scheduled_as_a_batch(folder: Path) -> None:
    """A run leaves the default policy, under which its threads interrupt each other."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        assert 0 == run("--job", "job-1").exit_code
        assert os.SCHED_BATCH == os.sched_getscheduler(0)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_run_ends_with_a_summary_and_again_does_nothing(folder: Path) -> None:
    """
    A simulated run has its own default directory, named first; the same command again does nothing and says so.
    """
    first, again = run("--json"), run("--json")

    summary = json.loads(first.stdout)
    assert (0, 3, "simulator") == (first.exit_code, summary["by_status"]["succeeded"], summary["gateway"])
    assert (0, str(Path("output/kittens-simulated"))) == (summary["exit_code"], summary["run_dir"])
    assert 1 == first.stdout.count("\n")
    assert "3 of 3 jobs succeeded" in first.stderr
    names_first = "run directory: output/kittens-simulated\n"
    assert first.stderr.startswith(names_first)
    assert (0, f"{names_first}kittens: nothing to do, all 3 jobs succeeded\n") == (
        again.exit_code,
        again.stderr,
    )
    assert summary == json.loads(again.stdout)
    lines = (folder / "output/kittens-simulated/results.jsonl").read_text().splitlines()
    assert {"simulator"} == {json.loads(line)["gateway"] for line in lines}


@pytest.mark.slow
def test_results_that_somebody_changed_are_written_again(folder: Path) -> None:
    """With nothing to run, results that were truncated or added to since become what they were."""
    run("-o", "out")
    results = Path("out/results.jsonl")
    whole = results.read_bytes()

    results.write_bytes(whole[:-10])
    again = run("-o", "out")
    assert (0, whole) == (again.exit_code, results.read_bytes())
    assert "nothing to do" in again.stderr

    results.write_bytes(whole + b"a foreign line")
    assert 0 == runner("report", "out").exit_code
    assert whole == results.read_bytes()


@pytest.mark.slow
def test_a_simulated_run_says_that_it_is_quick(folder: Path) -> None:
    """One line says which rates and waits it has; a run with --real-time has the manifest's, and so has its resume."""
    pace = "limits: {submit: 20/s}\npoll: {first: 0.1s, interval: 0.1s}\n"
    (folder / "kittens.yaml").write_text(MANIFEST + pace)

    fast, real = run("-o", "fast"), run("-o", "real", "--real-time", "--limit", "1")
    resumed = runner("resume", "real", "--scenario", "no-faults.yaml")

    assert 1 == fast.stderr.count("in place of the manifest's rates and waits (--real-time keeps them)")
    assert "3 of 3 jobs succeeded" in resumed.stderr
    assert "in place of" not in real.stderr + resumed.stderr


def test_a_scenario_is_checked_even_if_nothing_is_to_do(folder: Path) -> None:
    """Another name than that of a scenario is an error that lists them; nothing is written."""
    refused = run("--scenario", "mixt")

    assert not (folder / "output").exists()
    assert 0 == run("-q").exit_code
    again = run("--scenario", "mixt")
    resumed = runner("resume", "output/kittens-simulated", "--scenario", "mixt")
    for done in (refused, again, resumed):
        assert 2 == done.exit_code
        assert "give a file, or one of: demo, mixed" in done.stderr


@pytest.mark.slow
def test_the_commands_of_a_simulated_run_take_its_scenario(folder: Path) -> None:
    """The command that the end of a simulated run offers needs no --simulate; what is uncertain comes before a rerun."""
    run("--scenario", "scenario.yaml", "-o", "out", "--var", "what=kitten")

    done = runner("rerun", "out", "--scenario", "scenario.yaml")
    assert 0 == runner("resolve", "out", "job-3", "--give-up").exit_code
    again = runner("resume", "out")

    assert (4, 1) == (done.exit_code, again.exit_code)
    assert "next     runner resolve out   # lists" in done.stderr
    assert "next     runner rerun out   # submits 1 job, " in again.stderr


def test_final_summary(folder: Path) -> None:
    """
    It has each failure class with an example and advice, the uncertain job, the files, and last the next command.
    """
    done = run("--scenario", "scenario.yaml", "-o", "a dir", "--var", "what=kitten")
    listed = runner("resolve", "a dir")

    assert 4 == done.exit_code
    assert "1 remote_failed, for example job-2: " in done.stderr
    assert "submits it as a new, paid attempt" in " ".join(done.stderr.split())
    assert "job-3 sent " in done.stderr
    assert "with key " in done.stderr
    assert "failed.yaml" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("next     runner resolve 'a dir'   # ")
    for option in ("--task-id TASK_ID", "--not-submitted", "--give-up"):
        assert f"runner resolve 'a dir' job-3 {option}" in listed.stderr


def test_messages_of_the_api_are_sanitized(folder: Path) -> None:
    """
    Escape sequences are removed, and markup stays text.
    """
    done = run("--scenario", "scenario.yaml", "-v")

    assert "\x1b" not in done.stderr
    assert "[bold]bad[/bold]" in done.stderr


def test_quiet(folder: Path) -> None:
    """
    `--quiet` prints one line at the end.
    """
    done = run("--quiet")

    assert ["kittens: 3 of 3 jobs succeeded"] == [line.split(",")[0] for line in done.stderr.splitlines()]


def test_log_and_metrics_files(folder: Path) -> None:
    """
    The log has every step of every job, from the intent to the end; metrics are written at the end.
    """
    done = run("--scenario", "scenario.yaml", "--log-file", "log.jsonl", "--metrics-file", "run.prom")

    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    ended = {entry["job_id"]: entry["status"] for entry in entries if entry["event"] == "job_ended"}
    assert {"job-1": "succeeded", "job-2": "failed", "job-3": "uncertain"} == ended
    assert all("at" in entry for entry in entries)
    steps = [entry["event"] for entry in entries if entry.get("job_id") == "job-1"]
    assert ["intent", "answer"] == steps[:2]
    assert ["downloaded", "job_ended"] == steps[-2:]
    assert set(steps[2:-2]) == {"poll"}
    assert all(
        entry["task_id"] for entry in entries if entry.get("job_id") == "job-1" and entry["event"] != "intent"
    )
    assert ["start", "end"] == [entries[0]["event"], entries[-1]["event"]]
    metrics = (folder / "run.prom").read_text()
    assert f'runner_run_exit_code{{run="kittens"}} {done.exit_code}' in metrics


def test_files_that_can_not_be_written(folder: Path) -> None:
    """
    A log file that can't be opened is an error at the start; metrics that can't be written are a warning.
    """
    refused = run("--log-file", "absent/log.jsonl")
    done = run("--metrics-file", "absent/run.prom")

    assert 2 == refused.exit_code

    assert "absent/log.jsonl can't be written" in refused.stderr
    assert 0 == done.exit_code
    assert "could not write the metrics to absent/run.prom" in done.stderr


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_as_outputs(kind: str, folder: Path) -> None:
    """
    Nothing waits for a reader of a pipe, or is written through a link: the log is an error, the metrics are a warning.
    """
    (folder / "target").write_text("mine")
    if kind == "pipe":
        os.mkfifo(folder / "out.file")
    else:
        (folder / "out.file").symlink_to("target")

    refused = run("--log-file", "out.file")
    done = run("--metrics-file", "out.file")

    assert 2 == refused.exit_code
    assert "out.file can't be written: " in refused.stderr
    assert 0 == done.exit_code
    assert "could not write the metrics to out.file" in done.stderr
    assert "mine" == (folder / "target").read_text()
    assert not (folder / "out.file").is_file() or kind == "link"


def test_date_in_the_run_directory(folder: Path) -> None:
    """
    ${date} in -o is the date in UTC.
    """
    before = datetime.now(UTC).date().isoformat()
    done = run("-o", "nights/${date}", "--limit", "1")
    after = datetime.now(UTC).date().isoformat()

    assert 6 == done.exit_code
    assert {path.name for path in (folder / "nights").iterdir()} <= {before, after}


@pytest.mark.slow
def test_limit_and_job_leave_the_rest_for_resume(folder: Path) -> None:
    """
    Jobs that a run did not submit are pending, and `resume` submits them without the manifest.
    """
    limited = run("-o", "out", "--limit", "1")
    one = runner("resume", "out", "--job", "*-3")
    (folder / "kittens.yaml").unlink()
    rest = runner("resume", "out", "--json")

    assert (6, 0) == (limited.exit_code, one.exit_code)
    assert "--limit 1 was reached; not submitted: 2 jobs" in limited.stderr
    assert "2 pending" in limited.stderr
    assert "1 pending" in one.stderr
    assert 3 == json.loads(rest.stdout)["by_status"]["succeeded"]


@pytest.mark.slow
def test_the_next_command_keeps_to_the_jobs_of_the_run(folder: Path) -> None:
    """What is suggested after a limit has the options that chose the jobs, submits no others, and says how many."""
    chosen = ("--where", "prompt=*[123]", "--sample", "2")
    limited = run("-o", "out", *chosen, "--limit", "1")
    resumed = runner("resume", "out", *chosen)

    next_lines = [
        "next     submits 1 job, of unknown price:",
        "  runner resume out --where 'prompt=*[123]' --sample 2 --scenario no-faults.yaml",
    ]
    assert (6, next_lines) == (limited.exit_code, limited.stderr.splitlines()[-2:])
    assert "2 of 3 jobs succeeded" in resumed.stderr
    assert "runner resume out   # submits 1 job" in resumed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "bound", [("--limit", "0"), ("--max-runtime", "0s"), ("--stop-at", "now")], ids="".join
)
def test_no_time_and_no_jobs_submit_nothing(bound: tuple[str, str], folder: Path) -> None:
    """
    A limit of none, no time, and a time of day that is this very minute submit nothing, and exit with 6.
    """
    option, value = bound

    done = run("--json", option, datetime.now().astimezone().strftime("%H:%M") if value == "now" else value)

    assert (6, 3) == (done.exit_code, json.loads(done.stdout)["by_status"]["pending"])
    assert not (folder / "output/kittens-simulated/simulator.jsonl").read_text()


def test_pattern_without_a_match_is_an_error(folder: Path) -> None:
    """
    Exit code 2 with the nearest id; a pattern that matches says how many jobs it leaves pending.
    """
    typo = run("--job", "jbo-1")
    first, again = run("--job", "job-1"), run("--job", "job-1")
    resumed = runner("resume", "output/kittens-simulated", "--job", "nothing*")
    rerun = runner("rerun", "output/kittens-simulated", "--job", "nothing*", "--dry-run")

    assert [2, 0, 0, 2, 2] == [each.exit_code for each in (typo, first, again, resumed, rerun)]
    assert "no job of the run matches --job 'jbo-1'" in typo.stderr
    assert "did you mean 'job-1'?" in typo.stderr
    assert "nothing to do, 1 matching job succeeded; other jobs that are pending: 2" in again.stderr
    assert "the ids are such as 'job-1', 'job-2', 'job-3'" in resumed.stderr


def test_real_and_simulated_runs_are_kept_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A real run refuses the directory of a simulated run.
    """
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-not-used-anywhere")
    run("-o", "out")

    done = runner("run", "kittens.yaml", "-o", "out")

    assert 2 == done.exit_code

    assert "holds a simulated run" in done.stderr


def test_series_needs_a_date_in_its_name(folder: Path) -> None:
    """
    Older runs are deleted only if a date identifies the series; otherwise the command is an error.
    """
    done = run("--keep-runs", "2")

    assert 2 == done.exit_code

    assert "${date}" in done.stderr
    assert not (folder / "output").exists()


@pytest.mark.slow
def test_conditions_and_samples_choose_jobs(folder: Path) -> None:
    """Only what --where and --sample choose is submitted, and again the same; a rerun chooses among its own jobs."""

    def states() -> dict[str, str]:
        lines = (folder / "output/kittens-simulated/results.jsonl").read_text().splitlines()
        return {line["job_id"]: line["status"] for line in map(json.loads, lines)}

    typo, one = run("--where", "prompt=*cow*"), run("--where", "prompt=*2", "--sample", "1")
    assert (2, 0) == (typo.exit_code, one.exit_code)
    assert "no job of the run meets --where 'prompt=*cow*'" in typo.stderr
    assert {"job-1": "pending", "job-2": "succeeded", "job-3": "pending"} == states()

    sample, before = run("--sample", "1"), states()
    again = run("--sample", "1")
    assert (0, 0, before) == (sample.exit_code, again.exit_code, states())
    assert "nothing to do, 1 matching job succeeded" in again.stderr

    rerun = runner(
        "rerun", "output/kittens-simulated", "--where", "prompt=*[13]", "--sample", "1", "--dry-run"
    )
    assert "submit 1: new, paid attempts" in rerun.stdout
    typo = runner("rerun", "output/kittens-simulated", "--where", "split=test", "--dry-run")
    assert (2, True) == (typo.exit_code, "no job of the run meets --where split=test" in typo.stderr)
    assert "no job has 'split'; they have class, " in typo.stderr
    typo = runner("rerun", "output/kittens-simulated", "--where", "promt=*", "--class", "lost", "--dry-run")
    assert (2, True) == (typo.exit_code, "no job has 'promt'; did you mean 'prompt'?" in typo.stderr)


@pytest.mark.parametrize("existed", [False, True])
def test_a_run_that_is_refused_leaves_no_directory(folder: Path, existed: bool) -> None:
    """A run whose manifest has errors is not a run: its directory is deleted, or left as it was found."""
    (folder / "kittens.yaml").write_text(MANIFEST.replace("seconds", "secondz"))
    if existed:
        Path("out").mkdir()

    refused = runner("run", "kittens.yaml", "--simulate", "-o", "out")

    assert 2 == refused.exit_code
    assert existed == Path("out").exists()
    assert [] == list(Path().glob("out/*"))


def test_a_run_that_is_refused_later_leaves_its_directory_as_it_was(folder: Path) -> None:
    """What a run has is never deleted because its manifest has errors now."""
    assert 6 == run("-o", "out", "--limit", "0").exit_code
    (folder / "kittens.yaml").write_text(MANIFEST.replace("seconds", "secondz"))

    assert 2 == run("-o", "out").exit_code
    assert "3  pending" in runner("status", "out").stdout
