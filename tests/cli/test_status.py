"""`runner status` of active and inactive runs."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from runner.core.lifecycle import State
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(states: dict[str, State], **columns: Any) -> Path:
    return make_run(Path("out"), write_manifest(Path("m.yaml"), *states), states, **columns)


def test_a_finished_run_has_nothing_left() -> None:
    """The first lines have the number of jobs and their states."""
    run_dir = _run({"a": State.SUCCEEDED, "b": State.SUCCEEDED})

    result = runner("status", run_dir)

    assert 0 == result.exit_code
    assert ["out: 2 jobs, nothing left to do", "          2  succeeded"] == result.stdout.splitlines()


def test_a_simulated_run_is_called_one() -> None:
    """What is spent there is nobody's money, so the first line says that its jobs are simulated."""
    result = runner("status", _run({"a": State.SUCCEEDED, "b": State.PENDING}, simulate=True))

    assert "out: 2 simulated jobs, not active" == result.stdout.splitlines()[0]


def test_a_stopped_run() -> None:
    """The commands to continue the run and to resolve uncertain jobs are printed."""
    result = runner("status", _run({"a": State.SUCCEEDED, "b": State.PENDING, "c": State.UNCERTAIN}))

    assert "out: 3 jobs, not active" in result.stdout
    assert "continue with: runner resume out" in result.stdout
    assert "runner resolve out JOB" in result.stdout


def test_json_of_an_inactive_run() -> None:
    """The JSON has every state, zeros included, and that no process is running."""
    found = json.loads(runner("status", _run({"a": State.FAILED}), "--json").stdout)

    assert ["jobs", "by_status", "by_class", "running"] == list(found)[:4]
    assert (1, False) == (found["jobs"], found["running"])
    assert {state.value for state in State} == set(found["by_status"])
    assert (0.0, []) == (found["seconds_left"], found["stuck"])


def test_an_active_run_shows_the_limiting_setting_and_stuck_tasks() -> None:
    """A task that takes over three times the median of its model is listed, and so is the limiting setting."""
    now_at = time.time()
    done = {f"d{n}": State.SUCCEEDED for n in range(5)}
    submitted = {f"s{n}": State.SUBMITTED for n in range(4)}
    run_dir = _run({**done, "p": State.PENDING, **submitted}, generate_s=10.0, submitted_at=now_at - 20)
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET generate_s = NULL WHERE state != 'succeeded'")
        connection.execute("UPDATE jobs SET finished_at = ? WHERE state = 'succeeded'", (now_at - 5,))
        connection.execute("UPDATE jobs SET submitted_at = ? WHERE job_id = 's2'", (now_at - 100,))

    with Store(run_dir):
        found = json.loads(runner("status", run_dir, "--json").stdout)
        text = runner("status", run_dir).stdout

    assert (True, "limits.in_flight 4", ["s2"]) == (
        found["running"],
        found["binding"],
        [job["job_id"] for job in found["stuck"]],
    )
    # Five ended in the hundred seconds since the first submission, and five are left.
    assert 100 == pytest.approx(found["seconds_left"], abs=5)
    assert "s2: 1m 4" in text
    assert "(usually 10s for seedance-1-0-pro-250528)" in text
    with Store(run_dir) as store:
        with store.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE job_id = 'p'")
            connection.execute("UPDATE jobs SET finished_at = finished_at - 3600")
        # All tasks that are left have taken longer than the others did.
        assert None is json.loads(runner("status", run_dir, "--json").stdout)["seconds_left"]


def test_watch_ends_with_the_run() -> None:
    """If the run is not active, --watch prints the status once."""
    result = runner("status", _run({"a": State.PENDING}), "--watch", "--json")

    assert 1 == len(result.stdout.splitlines())


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, and long enough to be read as one"])
def test_not_a_run_directory(content: bytes | None) -> None:
    """A missing, empty or foreign run.db is an error without a traceback."""
    Path("out").mkdir()
    if content is not None:
        Path("out/run.db").write_bytes(content)

    result = runner("status", "out")

    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith(("error[store-missing]", "error[store-damaged]"))


@pytest.mark.parametrize(
    "options",
    [
        ("--base-url", "http://127.0.0.1:9", "--env-file", "my keys.env"),
        ("--simulate", "--scenario", "demo"),
    ],
    ids=["gateway and keys", "scenario"],
)
def test_each_suggested_command_has_what_the_run_needs(options: tuple[str, ...]) -> None:
    """What a run was begun with, and only its options named, is repeated by whatever suggests to continue it."""
    Path("my keys.env").write_text("POWERTOKENS_API_KEY=sk-key\n")
    begun = runner("run", write_manifest(Path("m.yaml"), "a", "b"), "-o", "out", "--limit", "0", *options)
    with Store(Path("out")) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'uncertain', attempt = 1 WHERE job_id = 'a'")
        connection.execute("UPDATE jobs SET state = 'succeeded', attempt = 1 WHERE job_id = 'b'")
        connection.execute(
            "INSERT INTO assets SELECT seq, 'video', 'x', 9, ?, 'video/mp4', NULL, NULL, NULL, 1 FROM jobs",
            ("a" * 64,),
        )
    resolved = runner("resolve", "out", "a", "--not-submitted")
    status = runner("status", "out")

    text = begun.stderr + resolved.stderr + status.stdout
    commands = [shlex.split(line)[2:] for line in re.findall("runner resume[^#\n]*", text)]
    absolute = [str(Path(word).absolute()) if word.endswith(".env") else word for word in options]
    needed = set(absolute) - {"--simulate"}
    assert (6, 4) == (begun.exit_code, len(commands))
    for words in commands:
        assert needed <= {str(Path(word).absolute()) if word.endswith(".env") else word for word in words}
