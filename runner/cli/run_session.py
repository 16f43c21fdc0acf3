"""Conduct a run for a person: watch it, let signals through to it, and show how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runner.api.options import IfLocked, RunOptions
from runner.cli.console import echo_stderr, echo_stdout
from runner.cli.event_log import EventLog
from runner.cli.final_summary import show_summary
from runner.cli.signals import Interrupted, Signals
from runner.core.problem import Problem, Severity
from runner.engine.events import Notice, RunEvent
from runner.errors import RunLocked, RunnerError

if TYPE_CHECKING:
    from runner.api.execute import RunResult
    from runner.cli.options import DisplayOptions
    from runner.engine.engine import Engine


_COLLECT_EVERY = 10_000
"""Containers made and not freed after which the collector looks for cycles."""


class Display(Protocol):
    """What shows a run while it is going."""

    def started(self, engine: Engine) -> None:
        """Take the engine to look at."""

    def event(self, event: RunEvent) -> None:
        """Show what happened."""

    def close(self) -> None:
        """Clear away."""


class QuietDisplay:
    """Shows nothing but what a person must know to go on."""

    def started(self, engine: Engine) -> None:
        """Look at nothing."""

    def event(self, event: RunEvent) -> None:
        """Show why the run stops, and nothing else."""
        from runner.cli.console import echo_stderr, event_line

        if isinstance(event, Notice) and event.kind == "stopping":
            echo_stderr(event_line(event))

    def close(self) -> None:
        """Have nothing to clear away."""


class RunObserver:
    """
    What a run is given to tell of itself.

    Showing things can fail in ways that are no matter of the run's, such as a terminal that was closed: from then
    on nothing is shown, and the run goes on.
    """

    def __init__(self, display: Display, log: EventLog, signals: Signals) -> None:
        self._display: Display | None = display
        self._log = log
        self._signals = signals

    def event(self, event: RunEvent) -> None:
        """Take an event of the run."""
        self._log.event(event)
        self._show(lambda display: display.event(event))

    def problem(self, problem: Problem) -> None:
        """Take a problem of the manifest: warnings are told as they come, errors with the refusal."""
        self._log.problem(problem)
        if problem.severity is Severity.WARNING:
            self._show(lambda display: display.event(Notice("warning", str(problem))))

    def started(self, engine: Engine) -> None:
        """Take the engine once there is one."""
        self._signals.started(engine)
        self._show(lambda display: display.started(engine))

    def _show(self, act: Callable[[Display], None]) -> None:
        if self._display is None:
            return
        try:
            act(self._display)
        except OSError:
            self._display = None


Begin = Callable[[RunObserver], Coroutine[Any, Any, "RunResult"]]


def run_watched(begin: Begin, wishes: DisplayOptions, title: str) -> RunResult:
    """
    Run to the end and return how it ended.

    Raises:
        RunnerError: As the run itself does.
        Interrupted: A signal came before any job was under way.
    """
    with EventLog(wishes.log_file) as log, Signals() as signals:
        display = _display(wishes, title)
        watch = RunObserver(display, log, signals)
        # What is loaded stays, and jobs make few cycles: looking for them as often as Python does costs 7 %.
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                return runner.run(begin(watch))
        finally:
            signals.ended()
            with contextlib.suppress(OSError):
                display.close()


def _display(wishes: DisplayOptions, title: str) -> Display:
    if wishes.quiet:
        return QuietDisplay()
    if sys.stderr.isatty():
        from runner.cli.displays import LiveDisplay

        return LiveDisplay(title, verbose=wishes.verbose)
    from runner.cli.displays import PlainDisplay

    return PlainDisplay(title, verbose=wishes.verbose)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Take the faster event loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_and_report(begin: Begin, options: RunOptions, wishes: DisplayOptions, *, title: str) -> int:
    """Conduct a run, do what is left to do after it, and return the exit code."""
    try:
        outcome = run_watched(begin, wishes, title)
    except RunLocked as error:
        if options.if_locked is not IfLocked.SKIP:
            raise
        echo_stderr(f"{error.message}; left alone")
        return 0
    except Interrupted as interrupted:
        echo_stderr("interrupted before any job was taken up; nothing was sent")
        return interrupted.exit_code
    return close(outcome, wishes, scenario=options.scenario)


def close(outcome: RunResult, wishes: DisplayOptions, *, scenario: str | None = None) -> int:
    """Show how a run ended, write what was asked for, and return the exit code."""
    # A terminal that is gone must not change how the run ended.
    with contextlib.suppress(OSError):
        show_summary(outcome, scenario=scenario, quiet=wishes.quiet)
        _tell_of_others(outcome, quiet=wishes.quiet)
    if wishes.metrics_file is not None:
        _write_metrics(outcome, wishes.metrics_file)
    if wishes.as_json:
        _print_summary(outcome)
    return outcome.exit_code


def _write_metrics(outcome: RunResult, path: Path) -> None:
    from runner.api.execute import summary_of
    from runner.report.prometheus import write_metrics

    summary = outcome.summary or summary_of(outcome.run_dir)
    try:
        write_metrics(path, summary, run=outcome.name, exit_code=outcome.exit_code, now_at=time.time())
    except (OSError, RunnerError) as error:
        # The run itself is what it is, whether or not somebody can count it.
        echo_stderr(f"the metrics could not be written to {path}: {error}", style="yellow")


def _print_summary(outcome: RunResult) -> None:
    from runner import jsontext
    from runner.api.execute import result_json

    echo_stdout(jsontext.dumps(result_json(outcome)).decode())


def _tell_of_others(outcome: RunResult, *, quiet: bool) -> None:
    """Say what became of older runs, and what went wrong with telling of this one."""
    for trouble in outcome.troubles:
        echo_stderr(f"not told of the end: {trouble}", style="yellow")
    if outcome.retention is None:
        return
    for kept in outcome.retention.kept:
        echo_stderr(f"kept {kept.run_dir}: {kept.why}", style="yellow")
    if not quiet:
        for run_dir in outcome.retention.deleted:
            echo_stderr(f"deleted {run_dir}")
