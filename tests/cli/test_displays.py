"""What an active run shows on a terminal, without one, and with --quiet."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from runner.cli import run_session
from runner.cli.console import shown_if_slow
from runner.cli.displays import Display, PlainDisplay, QuietDisplay, RunObserver, stop_line
from runner.core.lifecycle import State
from runner.core.model import Failure, FailureClass
from runner.core.stop import Stop, StopReason
from runner.engine.events import ActiveRun, JobEnded, Notice, Snapshot
from tests.cli.command import runner

ROOT = Path(__file__).parents[2]
MANIFEST = """
version: 1
name: kittens
jobs:
  - {id: '[bold]${n}', repeat: 3, request: {model: seedance-1-0-pro-250528, prompt: 'x ${n}', seconds: 4, size: 480p}}
"""
SCENARIO = """
version: 1
generate_s: [0.9, 1.0]
rules:
  - {match: {prompt: x 2}, submit: {fault: bad_request, times: always}}
"""


def failed(job_id: str) -> JobEnded:
    failure = Failure(FailureClass.REMOTE_FAILED, "no \x1b[31mreason")
    return JobEnded(job_id, "wan2.7-i2v", State.FAILED, failure)


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (QuietDisplay, []),
        (
            lambda: PlainDisplay(verbose=False),
            [
                *(f"job-{n}: failed (remote_failed): no reason" for n in range(10)),
                "further failures are counted but not listed; use --verbose to list them",
                "slow down",
            ],
        ),
        (
            lambda: PlainDisplay(verbose=True),
            [
                "job: succeeded",
                *(f"job-{n}: failed (remote_failed): no reason" for n in range(12)),
                "slow down",
                "checking the jobs",
                "writing the results",
            ],
        ),
    ],
    ids=["quiet", "plain", "verbose"],
)
def test_lines_without_a_terminal(
    make: Callable[[], Display], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Quiet: nothing; plain: notices and ten failures; verbose: every event, one safe line each."""
    display = make()

    display.event(JobEnded("job", "wan2.7-i2v", State.SUCCEEDED, None))
    for n in range(12):
        display.event(failed(f"job-{n}"))
    display.event(Notice("throttled", "slow down"))
    display.event(Notice("stopping", "the results can't be written", "free some space"))
    display.event(Notice("checking", "checking the jobs"))
    display.event(Notice("writing", "writing the results"))

    assert lines == capsys.readouterr().err.splitlines()


class BrokenDisplay(QuietDisplay):
    """A display with a bug, or on a terminal that went away."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.events = 0

    def event(self, event: object) -> None:
        """Fail."""
        self.events += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "events", "messages"),
    [(OSError("gone"), 1, []), (RuntimeError("bug"), 3, ["the display failed"])],
)
def test_no_error_of_a_display_reaches_the_run(
    error: Exception, events: int, messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without its terminal nothing is shown any more; a bug is reported once."""
    observer = RunObserver()
    observer.display = display = BrokenDisplay(error)

    with caplog.at_level(logging.WARNING, "runner"):
        for _ in range(3):
            observer.event(Notice("throttled", "slow down"))

    assert events == display.events
    assert messages == [record.message for record in caplog.records]


def test_messages_of_loggers_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a log file they are discarded."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    logging.getLogger(run_session.__name__).warning("internal")

    assert "" == capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal on which something was written, or not."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_what_takes_long_is_named_on_a_terminal(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named while it lasts, once it has taken a while, and nowhere but on a terminal."""
    monkeypatch.setattr(sys, "stderr", stream)

    with shown_if_slow("checking m.yaml ...", after_s=3600):
        pass
    assert "" == stream.getvalue()
    with shown_if_slow("checking m.yaml ...", after_s=0):
        for timer in (each for each in threading.enumerate() if isinstance(each, threading.Timer)):
            timer.join()

    assert stream.getvalue() == ("checking m.yaml ...\n" if stream.isatty() else "")


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs a thousand times as fast."""

    def time(self) -> float:
        """Return the seconds of this clock."""
        return 1000 * super().time()


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The counts are printed at the start, and the progress again and again."""
    counts = {**dict.fromkeys(State, 0), State.SUCCEEDED: 1, State.PENDING: 3}
    snapshot = Snapshot(counts, (), 0, 1, 8, 1.0, 0.5, "", False, 90.0)
    engine = SimpleNamespace(name="kittens", counts=counts, snapshot=lambda: snapshot)

    async def shown() -> list[str]:
        PlainDisplay(verbose=False).started(cast("ActiveRun", engine))
        lines: list[str] = []
        async with asyncio.timeout(60_000):
            while len(lines) < 3:
                lines += capsys.readouterr().err.splitlines()
                await asyncio.sleep(0)
        return lines

    with asyncio.Runner(loop_factory=FastLoop) as loop:
        first, *progress = loop.run(shown())

    assert "kittens: 1 succeeded, 3 pending" == first
    line = "1 of 4 finished (1 succeeded, 3 pending); submitting 30/min (max 60/min); about 1m 30s left"
    assert [line, line] == progress


def test_only_the_first_stop_is_said_at_once() -> None:
    """Nothing is submitted any more from the first one on, such as after `--max-runtime` the end of the drain time."""
    stops = (
        Stop(StopReason.DEADLINE, "the time is over"),
        Stop(StopReason.DRAIN_ENDED, "so is the drain time"),
    )
    engine = cast("ActiveRun", SimpleNamespace(stops=stops))

    lines = [stop_line(Notice("stopping", stop.message), engine) for stop in stops]

    assert ["stopping[deadline]: no new submissions", ""] == lines


@pytest.mark.slow
def test_why_a_run_stops_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for tasks only that it stops is shown; the end says why, and what to do."""
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MANIFEST)

    result = runner("run", "m.yaml", "--simulate", "--limit", "1", "--log-file", "log.jsonl")

    assert "stopping[limit]: no new submissions\nstopped[limit]: --limit 1 was reached" in result.stderr
    assert 1 == result.stderr.count("--limit 1 was reached")
    assert "--limit 1 was reached" in Path("log.jsonl").read_text()


@pytest.mark.slow
def test_live_display_of_a_terminal(tmp_path: Path) -> None:
    """The lines are redrawn in place, failures are listed as plain text, and at the end all is cleared."""
    (tmp_path / "m.yaml").write_text(MANIFEST)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    arguments = ["run", "m.yaml", "--simulate", "--scenario", "s.yaml", "-o", "out"]
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 1 << 16):
            output += chunk
    except OSError:
        # Linux reports the end of the other side as an error.
        pass
    finally:
        os.close(master)

    assert 1 == process.wait(timeout=30)
    text = output.decode()
    assert "checking the jobs" in text
    assert "of 3 (" in text
    assert "submitting " in text
    assert "[bold]2: failed (invalid_request)" in text
    # What remains when it is killed: the cursor is visible, and in an empty row below the others.
    first_frame = text.partition("\x1b[?25l")[2].partition("\x1b[2K")[0]
    assert "\r\n\x1b[?25h" in first_frame
    assert "\r\n\r\x1b[2K\x1b[1A" in text
    _, _, after_last_erase = text.rpartition("\x1b[2K")
    assert after_last_erase.lstrip().startswith("\x1b[33mkittens: 2 of 3 jobs succeeded")
