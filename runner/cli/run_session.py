"""A run for a person at a terminal: Ctrl-C and other signals, final summary, metrics, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from runner.api.options import IfLocked, RunOptions
from runner.api.run_result import Callbacks, RunResult, result_json, summary_of
from runner.cli.console import echo_stderr, echo_stdout, show_error
from runner.cli.displays import RunObserver, has_terminal, new_display
from runner.cli.event_log import EventLog
from runner.cli.shared_options import DisplayOptions
from runner.cli.streams import without_waiting
from runner.core.stop import SIGNAL_EXIT_CODES, Stop, StopReason, combined_exit_code
from runner.disk import require_output
from runner.errors import RunLocked, RunnerError
from runner.jsontext import dumps
from runner.report.prometheus import write_live_metrics, write_metrics

METRICS_EVERY_S = 15.0
_GC_THRESHOLD = 50_000
"""
New containers after which the garbage collector runs: more than 256 jobs in progress have. With 10,000 it ran a hundred
times in 5,000 of such jobs, and took 5 % of the time.
"""

# Else Python would print messages that go to no log file.
logging.getLogger("runner").addHandler(logging.NullHandler())

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
    path, observer, loop_factory = display_options.log_file, RunObserver(), _loop_factory()
    _schedule_as_batch()
    with (
        contextlib.nullcontext() if path is None else EventLog(path) as log,
        Signals(observer),
        without_waiting(),
    ):
        observer.log = log
        observer.display = new_display(title, quiet=display_options.quiet, verbose=display_options.verbose)
        confirm = observer.confirm
        confirm_cost = confirm if has_terminal() else None
        callbacks = Callbacks(observer.event, observer.problem, observer.started, confirm, confirm_cost)
        # What is loaded stays, and jobs make few cycles: Python's default threshold costs 7 %.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                run = start(callbacks)
                if display_options.metrics_file is not None:
                    run = _with_metrics(run, observer, display_options.metrics_file)
                return runner.run(run)
        finally:
            observer.close()


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


class Interrupted(KeyboardInterrupt):
    """
    A signal arrived before any job was started.

    Attributes:
        exit_code: The exit code of the process, as a shell reports the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 130 if number == signal.SIGINT else 143


class Signals:
    """
    A context manager that handles Ctrl-C, SIGTERM and a closed terminal; for the main thread only.

    Before the run has started, a signal ends the process at once: nothing was sent. After that the first signal
    stops submissions and lets active requests and downloads finish, the second abandons them, and a third is
    handled by the system. None of them loses anything, because everything that matters is already on disk.
    """

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer
        self._count = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup, or in the background of a script, a signal may be ignored on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        engine, loop = self._observer.engine, self._observer.loop
        if engine is None or loop is None or loop.is_closed():
            raise Interrupted(number)
        self._count += 1
        if self._count == 1:
            loop.call_soon_threadsafe(engine.stop, _stop(number))
            return
        for handled in self._previous:
            signal.signal(handled, signal.SIG_DFL)
        loop.call_soon_threadsafe(engine.abandon)


def _stop(number: int) -> Stop:
    what = "no new submissions; waiting for open requests and downloads"
    if number == signal.SIGINT:
        again = "press Ctrl-C again to stop now; nothing is lost either way"
        return Stop(StopReason.INTERRUPTED, f"interrupted: {what} ({again})")
    again = "send it again to stop now; nothing is lost either way"
    return Stop(StopReason.TERMINATED, f"{signal.Signals(number).name}: {what} ({again})")
