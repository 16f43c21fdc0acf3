"""`status`: how a run stands, at rest and at work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from runner.core.lifecycle import State
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(states: dict[str, State], **columns: object) -> Path:
    return make_run(Path("out"), write_manifest(Path("m.yaml"), *states), states, **columns)


def test_a_finished_run_has_nothing_left() -> None:
    """All that people look for first is in the first lines."""
    run_dir = _run({"a": State.SUCCEEDED, "b": State.SUCCEEDED})

    ran = runner("status", run_dir)

    assert ran.code == 0
    assert ["out: 2 jobs, nothing is left to do", "          2  succeeded"] == ran.out.splitlines()


def test_a_stopped_run_says_how_to_go_on() -> None:
    """The next command is on the screen."""
    ran = runner("status", _run({"a": State.SUCCEEDED, "b": State.PENDING, "c": State.UNCERTAIN}))

    assert "out: 3 jobs, no process is at work" in ran.out
    assert "to go on: runner resume out" in ran.out
    assert "in doubt: runner resolve out JOB" in ran.out


def test_json_of_a_run_at_rest() -> None:
    """Programs find each state, zeros included, and that nobody is at work."""
    found = json.loads(runner("status", _run({"a": State.FAILED}), "--json").out)

    assert ["jobs", "by_status", "by_class", "running"] == list(found)[:4]
    assert (1, False) == (found["jobs"], found["running"])
    assert {state.value for state in State} == set(found["by_status"])
    assert (0.0, []) == (found["seconds_left"], found["stuck"])


def test_a_run_at_work_shows_pace_bound_and_what_is_stuck() -> None:
    """A task that takes over three times its model's median is named; the limit that binds is, too."""
    now_at = time.time()
    done = {f"d{n}": State.SUCCEEDED for n in range(5)}
    under_way = {f"s{n}": State.SUBMITTED for n in range(4)}
    run_dir = _run({**done, "p": State.PENDING, **under_way}, generate_s=10.0, submitted_at=now_at - 20)
    with Store(run_dir) as store, store.transaction() as connection:
        connection.execute("UPDATE jobs SET generate_s = NULL WHERE state != 'succeeded'")
        connection.execute("UPDATE jobs SET finished_at = ? WHERE state = 'succeeded'", (now_at - 5,))
        connection.execute("UPDATE jobs SET submitted_at = ? WHERE job_id = 's2'", (now_at - 100,))

    with Store(run_dir):
        found = json.loads(runner("status", run_dir, "--json").out)
        said = runner("status", run_dir).out

    assert (True, "limits.in_flight 4", ["s2"]) == (
        found["running"],
        found["binding"],
        [job["job_id"] for job in found["stuck"]],
    )
    # Five ended in the hundred seconds since the first submission, and five are left.
    assert 100 == pytest.approx(found["seconds_left"], abs=5)
    assert "s2: 1m 4" in said
    assert "where seedance-1-0-pro-250528 usually takes 10s" in said


def test_watching_ends_with_the_run() -> None:
    """On a directory that nobody works in, --watch looks once."""
    ran = runner("status", _run({"a": State.PENDING}), "--watch", "--json")

    assert 1 == len(ran.out.splitlines())


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, and long enough to be read as one"])
def test_what_is_no_run_is_refused(content: bytes | None) -> None:
    """A missing, empty or foreign run.db gets a message and no traceback."""
    Path("out").mkdir()
    if content is not None:
        Path("out/run.db").write_bytes(content)

    ran = runner("status", "out")

    assert (2, "") == (ran.code, ran.out)
    assert ran.err.startswith(("error[store-missing]", "error[store-damaged]"))
