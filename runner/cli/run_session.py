"""
A run for a person at a terminal: display, signals, final summary, exit code, and a log file with a JSON object per line.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from runner import __version__
from runner.api.options import IfLocked, RunOptions
from runner.api.run_result import Callbacks, RunResult, result_json, summary_of
from runner.cli.console import echo_stderr, echo_stdout, show_error
from runner.cli.displays import Display, PlainDisplay, QuietDisplay
from runner.cli.shared_options import DisplayOptions
from runner.cli.signals import Interrupted, Signals
from runner.cli.streams import without_waiting
from runner.core.problem import Problem, Severity
from runner.core.sanitize import redact
from runner.core.stop import SIGNAL_EXIT_CODES, combined_exit_code
from runner.disk import open_own, require_output
from runner.engine.events import ActiveRun, JobEnded, Notice, RunEvent, guarded
from runner.errors import RunLocked, RunnerError, UsageError
from runner.jsontext import dumps
from runner.report.prometheus import write_live_metrics, write_metrics
from runner.results.formats import utc_text

METRICS_EVERY_S = 15.0
_GC_THRESHOLD = 50_000
"""
New containers after which the garbage collector runs: more than 256 jobs in progress have. With 10,000 it ran a hundred
times in 5,000 of such jobs, and took 5 % of the time.
"""


class RunObserver:
    """
    Passes what happens in a run to its display, its log file and its signal handlers.

    If the terminal goes away, nothing is shown from then on, and the run continues.

    Attributes:
        engine: The one that was started last; None before.
        callbacks: For the run; without a terminal nobody is asked whether to pay.
    """

    engine: ActiveRun | None = None

    def __init__(self, display: Display, log: EventLog, signals: Signals) -> None:
        self._display: Display | None = display
        self._log = log
        self._signals = signals
        confirm_cost = self.confirm if _has_terminal() else None
        self.callbacks = Callbacks(
            guarded(self.event), self.problem, self.started, self.confirm, confirm_cost
        )

    def event(self, event: RunEvent) -> None:
        """Log and show an event of the run."""
        self._log.event(event)
        self._show(lambda display: display.event(event))

    def problem(self, problem: Problem) -> None:
        """Log a problem of the manifest, and show it if it is a warning; errors are shown when the run is refused."""
        self._log.problem(problem)
        if problem.severity is Severity.WARNING:
            self._show(lambda display: display.event(Notice("warning", str(problem))))

    def started(self, engine: ActiveRun) -> None:
        """Handle signals with the engine, and show its progress."""
        self.engine = engine
        self._signals.started(engine)
        self._show(lambda display: display.started(engine))

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered with no unless there is a terminal."""
        if not _has_terminal():
            return False
        self._show(lambda display: display.close())
        return click.confirm(question, err=True)

    def _show(self, call: Callable[[Display], None]) -> None:
        if self._display is None:
            return
        try:
            call(self._display)
        except OSError:
            self._display = None


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


StartRun = Callable[[Callbacks], Coroutine[Any, Any, RunResult]]


def run_each_and_report(
    starts: Mapping[str, StartRun], options: RunOptions, display_options: DisplayOptions
) -> int:
    """Run one after the other, each with its title, until a signal; an error of one does not keep the others from running."""
    codes = []
    for title, start in starts.items():
        try:
            codes.append(run_and_report(start, options, display_options, title=title))
        except RunnerError as error:
            show_error(error)
            codes.append(error.exit_code)
        if codes[-1] in SIGNAL_EXIT_CODES:
            break
    return combined_exit_code(codes)


def run_and_report(
    start: StartRun, options: RunOptions, display_options: DisplayOptions, *, title: str
) -> int:
    """Run to the end, print how it ended, write what was requested, and return the exit code."""
    try:
        result = _run(start, display_options, title)
    except RunLocked as error:
        if options.if_locked is not IfLocked.SKIP:
            raise
        echo_stderr(f"{error.message}; skipped")
        return 0
    except Interrupted as interrupted:
        echo_stderr("interrupted before any job was started; nothing was sent")
        return interrupted.exit_code
    # Not before the first job is submitted.
    from runner.cli.final_summary import show_summary

    # The exit code must not depend on a terminal that went away.
    with contextlib.suppress(OSError):
        show_summary(result, options, quiet=display_options.quiet)
        _show_side_effects(result, quiet=display_options.quiet)
    if display_options.metrics_file is not None:
        _write_metrics(result, display_options.metrics_file)
    if display_options.as_json:
        # Nor on a reader of the summary that went away.
        with contextlib.suppress(BrokenPipeError):
            echo_stdout(dumps(result_json(result)).decode())
    return result.exit_code


def _run(start: StartRun, display_options: DisplayOptions, title: str) -> RunResult:
    with EventLog(display_options.log_file) as log, Signals() as signals, without_waiting():
        display = _display(display_options, title)
        observer = RunObserver(display, log, signals)
        # What is loaded stays, and jobs make few cycles: Python's default threshold costs 7 %.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        _schedule_as_batch()
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                run = start(observer.callbacks)
                if display_options.metrics_file is not None:
                    run = _with_metrics(run, observer, display_options.metrics_file)
                return runner.run(run)
        finally:
            signals.ended()
            with contextlib.suppress(OSError):
                display.close()


def _schedule_as_batch() -> None:
    """
    Keep threads that wake up from interrupting the one that runs, where the system can (Linux).

    A thread that wakes up after a commit or a written file mostly has to wait for the interpreter's lock first. These
    changes of threads took a tenth of a job's processor time. The share that other programs get stays the same.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        # A sandbox may forbid it.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _with_metrics(run: Coroutine[Any, Any, RunResult], observer: RunObserver, path: Path) -> RunResult:
    """Run to the end, and write the metrics of the active run every few seconds."""
    writing = asyncio.create_task(_write_live_metrics(observer, path))
    try:
        return await run
    finally:
        writing.cancel()


async def _write_live_metrics(observer: RunObserver, path: Path) -> None:
    while True:
        await asyncio.sleep(METRICS_EVERY_S)
        if observer.engine is not None:
            # That they can't be written is reported once, at the end.
            with contextlib.suppress(OSError, RunnerError):
                snapshot, name = observer.engine.snapshot(), observer.engine.name
                await asyncio.to_thread(write_live_metrics, path, snapshot, run=name, now_at=time.time())


def _display(display_options: DisplayOptions, title: str) -> Display:
    if display_options.quiet:
        return QuietDisplay()
    if not sys.stderr.isatty():
        return PlainDisplay(verbose=display_options.verbose)
    from runner.cli.live_display import LiveDisplay

    return LiveDisplay(title, verbose=display_options.verbose)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _show_side_effects(result: RunResult, *, quiet: bool) -> None:
    for trouble in result.troubles:
        echo_stderr(f"notification failed: {trouble}", style="yellow")
    if result.retention is None:
        return
    for kept in result.retention.kept:
        echo_stderr(f"kept {kept.run_dir}: {kept.why}", style="yellow")
    if not quiet:
        for run_dir in result.retention.deleted:
            echo_stderr(f"deleted {run_dir}")


def _write_metrics(result: RunResult, path: Path) -> None:
    summary = result.summary or summary_of(result.run_dir)
    try:
        require_output(path)
        write_metrics(path, summary, run=result.name, exit_code=result.exit_code, now_at=time.time())
    except (OSError, RunnerError) as error:
        # The exit code of the run does not depend on its metrics.
        echo_stderr(f"could not write the metrics to {path}: {error}", style="yellow")


JOBS = "runner.jobs"
"""The logger that has every step of every job."""


class EventLog(logging.Handler):
    """
    Appends events and the messages of the program's loggers to a file; without a file, discards both.

    If the file can't be written any more, for example because the disk is full, the log ends and the run continues.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Self:
        """
        Open the file.

        Raises:
            UsageError: The file can't be written.
        """
        if self._path is not None:
            try:
                # A link or a pipe could lead to a file of somebody else's, or wait for a reader.
                descriptor = open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                # Unbuffered, so that each line has left the process before the next event.
                self._file = os.fdopen(descriptor, "ab", buffering=0)
            except OSError as error:
                raise UsageError(
                    f"{self._path} can't be written: {error.strerror}",
                    hint="check the path given to --log-file",
                ) from None
        logging.getLogger("runner").addHandler(self)
        if self._file is not None:
            self.write("start", version=__version__, command=[redact(text) for text in sys.argv[1:]])
            logging.getLogger(JOBS).setLevel(logging.DEBUG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("runner").removeHandler(self)
        logging.getLogger(JOBS).setLevel(logging.NOTSET)
        if self._file is not None:
            self.write("end")
            self._file.close()

    def write(self, kind: str, **values: Any) -> None:
        """Append a line."""
        if self._file is None:
            return
        try:
            self._file.write(dumps({"at": utc_text(time.time()), "event": kind, **values}) + b"\n")
        except (OSError, ValueError):
            self._file.close()
            self._file = None

    def event(self, event: RunEvent) -> None:
        """Append an event of the run."""
        if isinstance(event, JobEnded):
            self.write(
                "job_ended",
                job_id=event.job_id,
                task_id=event.task_id,
                model=event.model,
                status=event.state.value,
                error_class=None if event.error is None else event.error.cls.value,
                message=None if event.error is None else event.error.message,
            )
        else:
            self.write(event.kind, message=event.message, hint=event.hint)

    def problem(self, problem: Problem) -> None:
        """Append a problem of the manifest."""
        self.write(
            "problem",
            severity=problem.severity.value,
            place=str(problem.position),
            job=problem.job,
            path=problem.path,
            message=problem.message,
            hint=problem.hint,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Append a step of a job, or a message of a logger with the traceback of its exception."""
        if record.name == JOBS:
            self.write(record.getMessage(), **getattr(record, "fields", {}))
            return
        trace = None if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
        self.write(
            "log",
            level=record.levelname.lower(),
            message=redact(record.getMessage()),
            trace=None if trace is None else redact(trace),
        )
