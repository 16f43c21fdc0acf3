"""The end of a run: 15 lines of 80 columns at most, the last of which is the command to continue with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runner.api.budget import Repeat
from runner.api.options import RunOptions
from runner.api.run_result import RunResult
from runner.cli.final_summary import show_summary
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass, JobRecord
from runner.core.stop import Stop, StopReason, exit_code
from runner.core.summary import summarize

LONG = "the gateway at https://api.example.com answered with a page that is no JSON: <html><head>" * 4


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    Path("output/kittens").mkdir(parents=True)


def record(job_id: str, state: State, cls: FailureClass) -> JobRecord:
    error = Failure(cls, LONG)
    return JobRecord(job_id, 0, "wan2.7-i2v", "wan", {"prompt": "A kitten"}, "d", {}, state, error=error)


def result(*stops: Stop, classes: int = 0, **counts: int) -> RunResult:
    """Make the end of a run with a number of jobs in each state, whose failures are of a number of classes."""
    names = list(FailureClass)[:classes]
    by_state = dict.fromkeys(State, 0) | {State(name): count for name, count in counts.items()}
    uncertain = by_state[State.UNCERTAIN]
    return RunResult(
        Path("output/kittens"),
        "kittens",
        "https://api.example.com",
        exit_code(stops, by_state),
        by_state,
        stops,
        by_class={cls: n + 1 for n, cls in enumerate(names)},
        examples=tuple(record(f"job-{n}", State.FAILED, cls) for n, cls in enumerate(names)),
        uncertain=tuple(
            record(f"u-{n}", State.UNCERTAIN, FailureClass.UNCERTAIN_SUBMIT) for n in range(uncertain)
        ),
        resume=Repeat(by_state[State.PENDING], None),
        rerun=Repeat(by_state[State.FAILED], None),
    )


def rows(text: str) -> int:
    """Count the rows of a terminal that a text takes."""
    return sum(-(-max(1, len(line)) // 80) for line in text.splitlines())


WORST = {state.value: 123_456 for state in set(State) - {State.UNCERTAIN, State.SUBMITTING}}
ENDINGS: dict[str, RunResult] = {
    "succeeded": result(succeeded=3),
    "one class": result(classes=1, succeeded=3, failed=2),
    "many classes": result(classes=20, succeeded=3, failed=200),
    "uncertain": result(succeeded=3, uncertain=1),
    "interrupted": result(
        Stop(StopReason.INTERRUPTED, "x"), classes=6, succeeded=3, failed=20, uncertain=1, submitted=2
    ),
    **{
        f"all at once, {reason}": result(
            Stop(reason, LONG, "do this, " * 15), classes=20, **WORST, uncertain=2
        )
        for reason in StopReason
    },
}


@pytest.mark.parametrize("name", ENDINGS)
def test_no_ending_scrolls_away(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At 80x24 all of it can be seen, and the last line is one command."""
    show_summary(ENDINGS[name], RunOptions())

    text = capsys.readouterr().err
    assert rows(text) <= 15, text
    assert "runner " in text.splitlines()[-1]
    assert 1 == text.count("next     ")


@pytest.mark.parametrize("name", ENDINGS)
def test_quiet_ends_in_five_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For a mail of cron: why it stopped, what is unfinished, failed or uncertain, and the command; one line for a success."""
    show_summary(ENDINGS[name], RunOptions(), quiet=True)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= (1 if name == "succeeded" else 5), lines
    if name == "interrupted":
        assert "stopped[interrupted]: 24 of 26 jobs finished, 2 still running remotely" == lines[0]
        assert "kittens: 3 of 26 jobs succeeded in 0s; unfinished: 2 submitted" == lines[1]
        assert lines[2].startswith("  20 failed; by class: 6 unavailable, 5 rate_limited, 4 forbidden, ...")
        assert lines[3].startswith("  1 uncertain: ")
        assert lines[4].startswith("  next: runner resume output/kittens")


@pytest.mark.parametrize(
    ("counts", "command"),
    [
        ({"succeeded": 1}, "runner report output/kittens --open   # shows the videos, free"),
        ({"succeeded": 1, "failed": 2}, "runner rerun output/kittens   # submits 2 jobs, as new attempts"),
        ({"failed": 2, "uncertain": 1}, "runner resolve output/kittens   # lists them, and what to do, free"),
        ({"failed": 2, "uncertain": 1, "pending": 3}, "runner resume output/kittens   # submits 3 jobs"),
        ({"undelivered": 2, "pending": 3}, "runner resume output/kittens   # submits 3 jobs, polls or downloads 2"),
        ({"timed_out": 2, "failed": 1}, "runner resume output/kittens   # polls or downloads 2, free"),
    ],
)  # fmt: skip
def test_the_next_command(counts: dict[str, int], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is free or continues comes first, then what a person has to decide, and last what is paid for again."""
    show_summary(result(**counts), RunOptions())

    assert f"next     {command}" == capsys.readouterr().err.splitlines()[-1]


def test_no_command_for_a_directory_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose directory was moved offers neither its files nor a command at the old place."""
    Path("output/kittens").rmdir()

    show_summary(result(Stop(StopReason.STORE, "moved", "look for it"), pending=3), RunOptions())

    text = capsys.readouterr().err
    assert "hint: look for it" in text
    assert "output/kittens" not in text


def test_a_command_is_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no space beside it, what it does stands above, and the last line can be pasted as it is."""
    monkeypatch.setenv("COLUMNS", "50")

    show_summary(result(undelivered=2, pending=3), RunOptions())

    lines = capsys.readouterr().err.splitlines()
    assert ["next     submits 3 jobs, polls or downloads 2:", "  runner resume output/kittens"] == lines[-2:]


def test_rejected_videos(capsys: pytest.CaptureFixture[str]) -> None:
    """Their jobs succeeded, so the end has to say it, with the command that makes new takes."""
    done = JobRecord("a", 0, "wan2.7-i2v", "wan", {}, "d", {}, State.SUCCEEDED, verdict={"value": "reject"})

    show_summary(replace(result(succeeded=2), summary=summarize([done])), RunOptions())

    again = "runner rerun output/kittens --verdict reject"
    assert f"  1 rejected by checks; for new, paid takes: {again}\n" in capsys.readouterr().err


def test_failed_jobs_that_a_rerun_leaves_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A rerun that would submit nothing is not offered."""
    show_summary(replace(result(failed=2, classes=1), rerun=Repeat(0, None)), RunOptions())

    last = capsys.readouterr().err.splitlines()[-1]
    assert "next     runner jobs output/kittens --status failed   # why each failed, free" == last


@pytest.mark.parametrize("quiet", [False, True])
def test_paid_tasks_that_are_not_on_disk(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The only trace of them is printed, with --quiet too, and all of them are."""
    unsaved: Any = tuple((f"job-{n}", f"task_{n}") for n in range(30))

    show_summary(replace(result(uncertain=30), unsaved=unsaved), RunOptions(), quiet=quiet)

    text = capsys.readouterr().err
    assert all(f"runner resolve output/kittens job-{n} --task-id task_{n}\n" in text for n in range(30))
