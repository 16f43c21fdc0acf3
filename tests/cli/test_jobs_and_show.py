"""`runner jobs` and `runner show`, and commands without a run directory."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from runner.cli.status_commands import job_lines
from runner.core.lifecycle import State
from runner.core.model import Attempt, Failure, FailureClass, JobRecord
from runner.store import query
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner

STATES = {"sky-1": State.SUCCEEDED, "sky-2": State.FAILED, "grass": State.UNCERTAIN, "sea": State.PENDING}


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a run with a job in each of four states, and make its folder the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = make_run(Path("output/kittens"), write_manifest(Path("m.yaml"), *STATES), STATES)

    async def fail() -> None:
        with Store(made) as store:
            async with store:
                await store.durable(_fail(store))

    asyncio.run(fail())
    return made


def _fail(store: Store) -> int:
    failed = query.job(store.reader, "sky-2", waiting_since=0.0)
    assert failed is not None
    failed.error = Failure(FailureClass.REMOTE_FAILED, "the GPU burned")
    return store.save(failed, Attempt(1, 1_700_000_000.0, "accepted", task_id="task_2", http_status=200))


@pytest.mark.parametrize(
    ("options", "job_ids"),
    [
        ((), ["sky-1", "sky-2", "grass", "sea"]),
        (("--status", "succeeded", "--status", "pending"), ["sky-1", "sea"]),
        (("--class", "remote_failed"), ["sky-2"]),
        (("--job", "sky-*"), ["sky-1", "sky-2"]),
        (("--job", "[!s]*"), ["grass"]),
        (("--job", "[^s]*"), ["grass"]),
        (("--where", "status!=succeeded", "--where", "index<3"), ["sky-2", "grass"]),
        (("--where", "metadata.split=test"), []),
    ],
)
def test_jobs_are_listed_in_manifest_order(
    run_dir: Path, options: tuple[str, ...], job_ids: list[str]
) -> None:
    """Every option narrows the list; JSON lines are those of results.jsonl."""
    text = runner("jobs", run_dir, *options)
    lines = runner("jobs", run_dir, *options, "--json").stdout.splitlines()

    assert job_ids == [line.split()[0] for line in text.stdout.splitlines()]
    assert job_ids == [json.loads(line)["job_id"] for line in lines]
    assert f"{len(job_ids)} job" in text.stderr


def test_a_list_of_jobs_fits_the_terminal() -> None:
    """Columns are as wide as the jobs need, and what became of a job is cut at the edge; in a file more of it is there."""
    failure = Failure(FailureClass.REMOTE_FAILED, "the GPU burned " * 9)
    records = [
        JobRecord(job_id, 0, "wan3.0-video", "wan3.0", {}, "d", {}, State.FAILED, error=failure)
        for job_id in ("a", "clip-000001")
    ]

    lines = list(job_lines(records, 80))

    assert ["a            failed       wan3.0-video  remote_failed: ", 80, 80] == [
        lines[0][:55],
        *map(len, lines),
    ]
    assert lines[1].startswith("clip-000001  failed       wan3.0-video  remote_failed: the GPU")
    assert [140, 140] == [len(line) for line in job_lines(records)]


def test_a_bad_condition_is_a_usage_error(run_dir: Path) -> None:
    """The message shows the form of conditions."""
    result = runner("jobs", run_dir, "--where", "split")

    assert 2 == result.exit_code
    assert "split=test" in result.stderr


def test_a_condition_on_what_no_job_has_is_a_usage_error(run_dir: Path) -> None:
    """A mistyped name is told from a value that no job has, and the nearest name is suggested; `!=` asks for nothing."""
    typo, value = (
        runner("jobs", run_dir, "--where", "promt=*"),
        runner("jobs", run_dir, "--where", "prompt=x"),
    )
    exported = runner(
        "export", run_dir, run_dir / "dataset", "--format", "webdataset", "--where", "modle=wan*"
    )

    assert (2, 0, 2) == (typo.exit_code, value.exit_code, exported.exit_code)
    assert "hint: no job has 'promt'; did you mean 'prompt'?" in typo.stderr
    assert "no succeeded job has 'modle'; did you mean 'model'?" in exported.stderr
    assert 0 == runner("jobs", run_dir, "--where", "split!=test").exit_code


def test_a_job_is_shown_with_its_attempts(run_dir: Path) -> None:
    """State, request, attempts and error are there; the JSON is the line of results.jsonl."""
    text = runner("show", run_dir, "sky-2").stdout
    line = json.loads(runner("show", run_dir, "sky-2", "--json").stdout)

    assert text.startswith("sky-2: failed\n")
    assert "  attempt 1: sent " in text
    assert "  error: remote_failed: " in text
    assert ("sky-2", "failed") == (line["job_id"], line["status"])


def test_an_unknown_job_gets_the_nearest_id(run_dir: Path) -> None:
    """A typo is a usage error with a suggestion."""
    result = runner("show", run_dir, "sky-3")

    assert 2 == result.exit_code
    assert "'sky-" in result.stderr


def test_an_unknown_job_without_a_near_id_gets_the_command_for_this_run(run_dir: Path) -> None:
    """The hint names the run directory, as the newest run may be another one."""
    result = runner("show", run_dir, "something-else")

    assert f"hint: list them with: runner jobs {run_dir}\n" in result.stderr


def test_an_answer_that_was_not_understood_is_shown_and_explained(run_dir: Path) -> None:
    """The answer goes to stdout as it was kept, the explanation to stderr; without one, the exit code is 1."""
    answer = '{"video_uuid": "x", "stage": "odd"}'
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute("INSERT INTO answers SELECT seq, 1, ? FROM jobs WHERE job_id = 'grass'", (answer,))

    shown = runner("show", run_dir, "grass", "--answer")
    absent = runner("show", run_dir, "sky-1", "--answer")

    assert (0, f"{answer}\n") == (shown.exit_code, shown.stdout)
    assert "then: " in shown.stderr
    assert "--answer" in runner("show", run_dir, "grass").stdout
    assert (1, "") == (absent.exit_code, absent.stdout)


@pytest.mark.parametrize("command", ["status", "jobs", "report", "resolve", "resume"])
def test_without_a_run_directory_it_is_the_newest_run(run_dir: Path, command: str) -> None:
    """The run whose store was written last is used, and its directory is printed."""
    other = make_run(Path("output/older"), write_manifest(Path("o.yaml"), "a"), {"a": State.SUCCEEDED})
    for at, folder in enumerate((other, run_dir), 1_700_000_000):
        for path in folder.glob("run.db*"):
            os.utime(path, (at, at))

    result = runner(command, "--json") if command in ("status", "jobs") else runner(command)

    assert f"newest run: {run_dir}" in result.stderr


def test_the_newest_run_is_one_that_has_begun(run_dir: Path) -> None:
    """A directory whose process was killed before it had read the manifest is passed over."""
    with Store(Path("output/never-begun")):
        pass

    assert f"newest run: {run_dir}" in runner("status").stderr


def test_without_any_run_a_directory_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is guessed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    result = runner("status")

    assert 2 == result.exit_code
    assert "name a run directory" in result.stderr
