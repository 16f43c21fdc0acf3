"""`runner resolve`: one or many uncertain jobs, all or none."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.command import CommandResult, runner

MANIFEST = """
version: 1
name: lost-answers
jobs:
  # First, because after three uncertain jobs submissions are paused.
  - id: fine
    request: {model: seedance-1-0-pro-250528, prompt: fine, seconds: 4, size: 480p}
  - id: job-${n}
    repeat: 2
    request: {model: seedance-1-0-pro-250528, prompt: 'job ${n}', seconds: 4, size: 480p}
  - id: '-[odd] one'
    request: {model: seedance-1-0-pro-250528, prompt: 'job 3', seconds: 4, size: 480p}
"""

SCENARIO = """
version: 1
generate_s: [0.1, 0.2]
job_label: '(job \\d)'
rules:
  - {name: answer lost, match: {prompt: job}, submit: {fault: reset, created: true}}
"""


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the manifest: three jobs become uncertain, whose tasks exist."""
    folder = tmp_path_factory.mktemp("lost")
    (folder / "lost.yaml").write_text(MANIFEST)
    (folder / "scenario.yaml").write_text(SCENARIO)
    options = ("--simulate", "--scenario", folder / "scenario.yaml", "-o", folder / "run", "--in-flight", "1")
    assert 4 == runner("run", folder / "lost.yaml", *options).exit_code
    # It is gone from where it was, so that a copy may continue.
    return (folder / "run").rename(folder / "moved")


@pytest.fixture
def run_dir(run_once: Path, tmp_path: Path) -> Path:
    """Return a copy of that run."""
    import shutil

    shutil.copytree(run_once, tmp_path / "run")
    return tmp_path / "run"


def states(run_dir: Path) -> dict[str, str]:
    """Read the state of each job from the results."""
    lines = (run_dir / "results.jsonl").read_text().splitlines()
    return {line["job_id"]: line["status"] for line in map(json.loads, lines)}


def tasks(run_dir: Path) -> dict[str, str]:
    """Read the tasks from the simulator's ledger, as a person would in the account."""
    entries = [json.loads(line) for line in (run_dir / "simulator.jsonl").read_text().splitlines()]
    return {entry["prompt"]: entry["task_id"] for entry in entries}


def resolve(run_dir: Path, *arguments: object) -> CommandResult:
    """Run the command."""
    return runner("resolve", run_dir, *arguments)


def test_named_task_is_polled_and_fetched(run_dir: Path) -> None:
    """
    `--task-id` makes a job submitted, which the results show at once, and `resume` downloads it without a POST.
    """
    done = resolve(run_dir, "job-1", "--task-id", tasks(run_dir)["job 1"])
    before = tasks(run_dir)

    assert (0, "submitted") == (done.exit_code, states(run_dir)["job-1"])
    assert "2 still uncertain" in done.stderr
    assert 4 == runner("resume", run_dir).exit_code
    assert ("succeeded", before) == (states(run_dir)["job-1"], tasks(run_dir))


def test_many_at_once_by_pattern(run_dir: Path) -> None:
    """
    Patterns match uncertain jobs, and an id that looks like a pattern is taken as an id.
    """
    written_off = resolve(run_dir, "job-*", "--give-up")
    pending = resolve(run_dir, "--not-submitted", "--json", "--", "-[odd] one")

    assert (0, 0) == (written_off.exit_code, pending.exit_code)
    assert ["succeeded", "failed", "failed", "pending"] == list(states(run_dir).values())
    assert {"settled": ["-[odd] one"], "refused": [], "uncertain": 0} == json.loads(pending.stdout)


def test_commands_to_paste(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is offered can be pasted, even if the names of a directory and of a job look like options.
    """
    resolve(run_dir, "job-*", "--give-up")
    monkeypatch.chdir(run_dir.rename(run_dir.with_name("-run")).parent)
    (command,) = re.findall(r"(runner .*--not-submitted.*?)   #", runner("resolve", "./-run").stderr)

    assert 0 == runner(*shlex.split(command)[1:]).exit_code
    assert "pending" == states(Path("-run"))["-[odd] one"]


def test_one_refused_job_refuses_all(run_dir: Path) -> None:
    """
    If one job is not uncertain, it is named and no job is changed.
    """
    done = resolve(run_dir, "job-*", "fine", "nobody", "--give-up")

    assert 2 == done.exit_code
    assert "fine is succeeded, not uncertain" in done.stderr
    assert "nobody matches no uncertain job" in done.stderr
    assert 3 == list(states(run_dir).values()).count("uncertain")


def test_tasks_from_a_file(run_dir: Path, tmp_path: Path) -> None:
    """
    A CSV file as spreadsheets write it, with BOM and header, resolves many jobs.
    """
    known = tasks(run_dir)
    rows = f'job_id,task_id\r\njob-1,{known["job 1"]}\r\n\r\n"-[odd] one", {known["job 3"]}\r\n'
    (tmp_path / "tasks.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())

    done = resolve(run_dir, "--from", tmp_path / "tasks.csv")

    assert (0, "submitted", "uncertain", "submitted") == (done.exit_code, *list(states(run_dir).values())[1:])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("job-1\n", "line 1 is not job_id,task_id"),
        ("job-1,a,b\njob-2,\n", "line 2 is not job_id,task_id"),
        ("job-1,task_1\njob-1,task_2\n", "line 2 names 'job-1' a second time"),
        ("job-1,a\x07b\n", "line 1: 'a\\x07b' is not a task id"),
        ("job-1,sk-abcdefgh\n", "looks like an API key"),
        ("\n\n", "names no jobs"),
        ("job-1,task_1\njob-2,task_1\n", "it is named for another job too"),
        ("job-1,task_1\nnobody,task_2\n", "nobody is not a job of this run"),
    ],
)
def test_file_with_bad_lines(run_dir: Path, tmp_path: Path, rows: str, message: str) -> None:
    """
    The bad line is named, and no job is changed.
    """
    (tmp_path / "tasks.csv").write_text(rows)

    done = resolve(run_dir, "--from", tmp_path / "tasks.csv")

    assert 2 == done.exit_code, done.stderr

    assert message in done.stderr
    assert "sk-abcdefgh" not in done.stderr
    assert 3 == list(states(run_dir).values()).count("uncertain")


def test_list_of_uncertain_jobs_is_the_file_to_fill_in(run_dir: Path, tmp_path: Path) -> None:
    """
    Without jobs the uncertain ones are listed; what is on stdout resolves those whose tasks are filled in.
    """
    listed = resolve(run_dir)
    text = listed.stdout
    assert (0, "job_id,task_id\njob-1,\njob-2,\n-[odd] one,\n") == (listed.exit_code, text)
    assert "'job 1'" in listed.stderr

    (tmp_path / "tasks.csv").write_text(text.replace("job-1,", f"job-1,{tasks(run_dir)['job 1']}"))
    done = resolve(run_dir, "--from", tmp_path / "tasks.csv")

    assert (0, "submitted", "uncertain") == (done.exit_code, *list(states(run_dir).values())[1:3])
    left = json.loads(resolve(run_dir, "--json").stdout)
    assert (2, ["job-2", "-[odd] one"]) == (left["uncertain"], [job["job_id"] for job in left["jobs"]])
    assert "job 2" == left["jobs"][0]["prompt"]
    assert left["jobs"][0]["submitted_at"]


def test_jobs_that_were_given_up_are_not_to_be_resolved(run_dir: Path) -> None:
    """
    Once all are written off, no hint names `resolve`: they are failed, and only a named class submits them again.
    """
    resolve(run_dir, "--give-up", "--", "*", "-[odd] one")

    dry = runner("rerun", run_dir, "--dry-run")
    done = runner("resume", run_dir)

    assert (
        "skip 3 uncertain_submit: given up, and may be paid for; to submit them anyway, add --class"
        in dry.stdout
    )
    for text in (dry.stdout, dry.stderr, done.stderr, (run_dir / "report.html").read_text()):
        assert "runner resolve" not in text
    assert (0, []) == (resolve(run_dir).exit_code, json.loads(resolve(run_dir, "--json").stdout)["jobs"])
    anyway = json.loads(runner("rerun", run_dir, "--dry-run", "--json", "--class", "uncertain_submit").stdout)
    assert (3, {}) == (anyway["to_submit"], anyway["left_alone"])


def test_task_of_another_job_is_refused(run_dir: Path) -> None:
    """
    A task that belongs to a job can't be given to another one, which would get the wrong video.
    """
    done = resolve(run_dir, "job-1", "--task-id", tasks(run_dir)["fine"])

    assert 2 == done.exit_code

    assert "it belongs to fine" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("job-1",),
        ("job-1", "--give-up", "--not-submitted"),
        ("--give-up",),
        ("job-1", "job-2", "--task-id", "task_1"),
        ("job-1", "--task-id", "sk-abcdefgh"),
        ("job-1", "--from", "x.csv"),
    ],
)
def test_invalid_arguments(run_dir: Path, arguments: tuple[str, ...]) -> None:
    """
    Arguments that are not exactly one resolution of named jobs are a usage error, which never shows a key.
    """
    done = resolve(run_dir, *arguments)

    assert 2 == done.exit_code

    assert done.stderr.startswith("error[usage]")
    assert "sk-abcdefgh" not in done.stderr
