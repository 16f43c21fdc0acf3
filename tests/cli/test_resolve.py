"""`runner resolve`: settling jobs in doubt, one or many, all or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import Ran, runner

MANIFEST = """
version: 1
name: doubts
jobs:
  # First, since after three jobs in doubt nothing is submitted for a while.
  - id: fine
    request: {model: seedance-1-0-pro-250528, prompt: fine, seconds: 4, size: 480p}
  - id: doubt-${n}
    repeat: 2
    request: {model: seedance-1-0-pro-250528, prompt: 'doubt ${n}', seconds: 4, size: 480p}
  - id: '[odd] one'
    request: {model: seedance-1-0-pro-250528, prompt: 'doubt 3', seconds: 4, size: 480p}
"""

SCENARIO = """
version: 1
generate_s: [0.1, 0.2]
job_label: '(doubt \\d)'
rules:
  - {name: in doubt, match: {prompt: doubt}, submit: {fault: reset, created: true}}
"""


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the manifest: three jobs are in doubt, whose tasks exist."""
    folder = tmp_path_factory.mktemp("doubts")
    (folder / "doubts.yaml").write_text(MANIFEST)
    (folder / "scenario.yaml").write_text(SCENARIO)
    words = ("--simulate", "--scenario", folder / "scenario.yaml", "-o", folder / "run", "--in-flight", "1")
    assert 4 == runner("run", folder / "doubts.yaml", *words).code
    return folder / "run"


@pytest.fixture
def run_dir(run_once: Path, tmp_path: Path) -> Path:
    """Have a copy of that run."""
    import shutil

    shutil.copytree(run_once, tmp_path / "run")
    return tmp_path / "run"


def states(run_dir: Path) -> dict[str, str]:
    """Read the state of each job from the results."""
    lines = (run_dir / "results.jsonl").read_text().splitlines()
    return {line["job_id"]: line["status"] for line in map(json.loads, lines)}


def tasks(run_dir: Path) -> dict[str, str]:
    """Read from the simulator's ledger what a person would read in the account."""
    entries = [json.loads(line) for line in (run_dir / "simulator.jsonl").read_text().splitlines()]
    return {entry["prompt"]: entry["task_id"] for entry in entries}


def resolve(run_dir: Path, *words: object) -> Ran:
    """Settle."""
    return runner("resolve", run_dir, *words)


def test_named_task_is_polled_and_fetched(run_dir: Path) -> None:
    """
    `--task-id` gives a job its task, the results show it at once, and `resume` brings the video without a POST.
    """
    done = resolve(run_dir, "doubt-1", "--task-id", tasks(run_dir)["doubt 1"])
    before = tasks(run_dir)

    assert (0, "submitted") == (done.code, states(run_dir)["doubt-1"])
    assert "2 still in doubt" in done.err
    assert 4 == runner("resume", run_dir).code
    assert ("succeeded", before) == (states(run_dir)["doubt-1"], tasks(run_dir))


def test_many_at_once_by_pattern(run_dir: Path) -> None:
    """
    Patterns name jobs in doubt, and an id that looks like a pattern is taken as the id.
    """
    written_off = resolve(run_dir, "doubt-*", "--give-up")
    pending = resolve(run_dir, "[odd] one", "--not-submitted", "--json")

    assert (0, 0) == (written_off.code, pending.code)
    assert ["succeeded", "failed", "failed", "pending"] == list(states(run_dir).values())
    assert {"settled": ["[odd] one"], "refused": [], "uncertain": 0} == json.loads(pending.out)


def test_what_is_refused_is_named_and_nothing_is_settled(run_dir: Path) -> None:
    """
    One job that is not in doubt keeps all of them as they are.
    """
    done = resolve(run_dir, "doubt-*", "fine", "nobody", "--give-up")

    assert 2 == done.code
    assert "fine is succeeded, not uncertain" in done.err
    assert "nobody names no uncertain job" in done.err
    assert 3 == list(states(run_dir).values()).count("uncertain")


def test_tasks_from_a_file(run_dir: Path, tmp_path: Path) -> None:
    """
    A spreadsheet's CSV, with BOM and heading, settles many jobs.
    """
    known = tasks(run_dir)
    rows = f'job_id,task_id\r\ndoubt-1,{known["doubt 1"]}\r\n\r\n"[odd] one", {known["doubt 3"]}\r\n'
    (tmp_path / "tasks.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())

    done = resolve(run_dir, "--from", tmp_path / "tasks.csv")

    assert (0, "submitted", "uncertain", "submitted") == (done.code, *list(states(run_dir).values())[1:])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("doubt-1\n", "line 1 is not job_id,task_id"),
        ("doubt-1,a,b\ndoubt-2,\n", "line 2 is not job_id,task_id"),
        ("doubt-1,task_1\ndoubt-1,task_2\n", "line 2 names 'doubt-1' a second time"),
        ("doubt-1,../../x\n", "line 1: '../../x' is not a task id"),
        ("doubt-1,sk-abcdefgh\n", "looks like an API key"),
        ("\n\n", "names no jobs"),
        ("doubt-1,task_1\ndoubt-2,task_1\n", "it is named for another job too"),
        ("doubt-1,task_1\nnobody,task_2\n", "nobody is no job of this run"),
    ],
)
def test_file_with_bad_lines_settles_nothing(run_dir: Path, tmp_path: Path, rows: str, said: str) -> None:
    """
    Each bad line is named, and nothing of the file is taken.
    """
    (tmp_path / "tasks.csv").write_text(rows)

    done = resolve(run_dir, "--from", tmp_path / "tasks.csv")

    assert (2, True) == (done.code, said in done.err), done.err
    assert "sk-abcdefgh" not in done.err
    assert 3 == list(states(run_dir).values()).count("uncertain")


def test_task_of_another_job_is_refused(run_dir: Path) -> None:
    """
    A task that a job has already can't be given to a second one, which would get the other's video.
    """
    done = resolve(run_dir, "doubt-1", "--task-id", tasks(run_dir)["fine"])

    assert (2, True) == (done.code, "it belongs to fine" in done.err)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("doubt-1",),
        ("doubt-1", "--give-up", "--not-submitted"),
        ("--give-up",),
        ("doubt-1", "doubt-2", "--task-id", "task_1"),
        ("doubt-1", "--task-id", "sk-abcdefgh"),
        ("doubt-1", "--from", "x.csv"),
    ],
)
def test_words_that_do_not_fit_together(run_dir: Path, words: tuple[str, ...]) -> None:
    """
    What is not clearly one verdict on named jobs is a usage error, and never shows a key.
    """
    done = resolve(run_dir, *words)

    assert (2, True) == (done.code, done.err.startswith("error[usage]"))
    assert "sk-abcdefgh" not in done.err
