"""What a run shows and asks while it is active, and the texts of all displays."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import click

from runner.cli.console import echo_stderr
from runner.core.lifecycle import State
from runner.core.problem import Problem, Severity
from runner.core.sanitize import sanitize_line
from runner.core.stop import StopReason
from runner.core.units import format_count, format_duration, format_per_minute
from runner.engine.events import ActiveRun, JobEnded, Notice, RunEvent, Snapshot

if TYPE_CHECKING:
    from runner.cli.event_log import EventLog

log = logging.getLogger(__name__)

STATES = (
    State.SUCCEEDED,
    State.FAILED,
    State.UNCERTAIN,
    State.TIMED_OUT,
    State.UNDELIVERED,
    State.PENDING,
    State.SUBMITTING,
    State.SUBMITTED,
    State.DOWNLOADING,
)
"""The states in the order in which they are shown: first those that end a job."""

COLORS: Mapping[State, str] = {
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.UNCERTAIN: "yellow",
    State.TIMED_OUT: "yellow",
    State.UNDELIVERED: "yellow",
}

BY_SIGNAL = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})
PASSING = frozenset({"checking", "writing"})
"""Kinds of notices that a live display shows only as long as they hold, and others only with `verbose`."""
_MAX_LINE_CHARS = 300
_PROGRESS_EVERY_S = 30.0
_MAX_FAILURES_LISTED = 10


class Display(Protocol):
    """Shows an active run."""

    def started(self, engine: ActiveRun) -> None:
        """Start to show an engine's progress; called in its event loop."""

    def event(self, event: RunEvent) -> None:
        """Show an event."""

    def close(self) -> None:
        """Remove what should not stay on the screen."""


class RunObserver:
    """
    Passes what happens in a run to its display and its log file, and asks questions.

    No error of a display reaches the run: if the terminal goes away, nothing is shown from then on.

    Attributes:
        display: None before there is one, and after its terminal went away.
        log: None without a log file.
        engine: The one that was started last; None before, and when the run is over.
        loop: The event loop of the engine.
    """

    display: Display | None = None
    log: EventLog | None = None
    engine: ActiveRun | None = None
    loop: asyncio.AbstractEventLoop | None = None
    _has_failed = False

    def event(self, event: RunEvent) -> None:
        """Log and show an event of the run."""
        if self.log is not None:
            self.log.event(event)
        self._show(lambda display: display.event(event))

    def problem(self, problem: Problem) -> None:
        """Log a problem of the manifest, and show it if it is a warning; errors are shown when the run is refused."""
        if self.log is not None:
            self.log.problem(problem)
        if problem.severity is Severity.WARNING:
            self._show(lambda display: display.event(Notice("warning", str(problem))))

    def started(self, engine: ActiveRun) -> None:
        """Show the progress of an engine, which signals stop from now on; called in its event loop."""
        self.engine, self.loop = engine, asyncio.get_running_loop()
        self._show(lambda display: display.started(engine))

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered with no unless there is a terminal."""
        if not has_terminal():
            return False
        self._show(lambda display: display.close())
        return click.confirm(question, err=True)

    def close(self) -> None:
        """End the display of a run that is over."""
        self.engine = None
        self._show(lambda display: display.close())

    def _show(self, call: Callable[[Display], None]) -> None:
        if self.display is None:
            return
        try:
            call(self.display)
        except OSError:
            self.display = None
        except Exception:
            # Once: the next million events would fail in the same way.
            log.log(
                logging.DEBUG if self._has_failed else logging.WARNING, "the display failed", exc_info=True
            )
            self._has_failed = True


def has_terminal() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def new_display(title: str, *, quiet: bool, verbose: bool) -> Display:
    """Return the display for stderr: one that is redrawn only on a terminal."""
    if quiet:
        return QuietDisplay()
    if not sys.stderr.isatty():
        return PlainDisplay(verbose=verbose)
    from runner.cli.live_display import LiveDisplay

    return LiveDisplay(title, verbose=verbose)


class QuietDisplay:
    """
    Shows in a line what older runs of a series still need, and nothing else.

    The end says in five lines how the run ended, and why it stopped early.
    """

    def __init__(self) -> None:
        self._older: list[Notice] = []

    def started(self, engine: ActiveRun) -> None:
        """Show nothing."""

    def event(self, event: RunEvent) -> None:
        """Keep what an older run needs: nobody may have read how that one ended, since its process was killed."""
        if isinstance(event, Notice) and event.kind == "catch_up" and event.hint is not None:
            self._older.append(event)

    def close(self) -> None:
        """Print the first of them, and how many more there are."""
        if self._older:
            first, *others = self._older
            more = f" (and {format_count(len(others), 'other run')})" if others else ""
            echo_stderr(event_line(first) + more)


class PlainDisplay:
    """
    Prints notices, the first failures, and a line of progress every half minute.

    Args:
        verbose: Whether to print a line for every finished job.
    """

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._failures = 0
        self._engine: ActiveRun | None = None
        self._timer: asyncio.TimerHandle | None = None

    def started(self, engine: ActiveRun) -> None:
        """Print the counts now, and the progress every half minute."""
        self._engine = engine
        echo_stderr(f"{engine.name}: {counts_text(engine.counts)}", max_chars=_MAX_LINE_CHARS)
        if self._timer is not None:
            self._timer.cancel()
        self._start_timer(engine)

    def event(self, event: RunEvent) -> None:
        """Print a notice, a failure, or with ``verbose`` any event."""
        is_brief = isinstance(event, Notice) and event.kind in PASSING
        if isinstance(event, Notice) and event.kind == "stopping":
            if line := stop_line(event, self._engine):
                echo_stderr(line)
        elif self._verbose or not (isinstance(event, JobEnded) or is_brief):
            show_event(event)
        elif isinstance(event, JobEnded) and event.state is not State.SUCCEEDED:
            self._print_failure(event)

    def close(self) -> None:
        """Do nothing."""

    def _print_failure(self, event: JobEnded) -> None:
        self._failures += 1
        if self._failures <= _MAX_FAILURES_LISTED:
            show_event(event)
        elif self._failures == _MAX_FAILURES_LISTED + 1:
            echo_stderr("further failures are counted but not listed; use --verbose to list them")

    def _start_timer(self, engine: ActiveRun) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_PROGRESS_EVERY_S, self._print_progress, engine)

    def _print_progress(self, engine: ActiveRun) -> None:
        echo_stderr(progress_line(engine.snapshot()))
        self._start_timer(engine)


def event_line(event: RunEvent) -> str:
    """Format an event as one safe line."""
    return sanitize_line(_event_text(event), max_chars=_MAX_LINE_CHARS)


def _event_text(event: RunEvent) -> str:
    if isinstance(event, Notice):
        return event.message if event.hint is None else f"{event.message} ({event.hint})"
    line = f"{event.job_id}: {event.state.label}"
    if event.error is None or event.state is State.SUCCEEDED:
        return line
    return f"{line} ({event.error.cls}): {event.error.message}"


def stop_line(event: Notice, engine: ActiveRun | None) -> str:
    """
    Format that a run stops, while it may wait for tasks: why, and what to do, is said once, at the end.

    Empty for a stop at the end itself, and for a further one. That of a signal is shown as it is: the end has the
    counts in its place.
    """
    stops = () if engine is None else engine.stops
    reason = next((stop.reason for stop in stops if stop.message == event.message), None)
    if reason in BY_SIGNAL:
        return sanitize_line(event.message, max_chars=_MAX_LINE_CHARS)
    return f"stopping[{reason}]: no new submissions" if stops and reason is stops[0].reason else ""


def show_event(event: RunEvent) -> None:
    """Print an event as one safe line."""
    echo_stderr(_event_text(event), max_chars=_MAX_LINE_CHARS)


def progress_line(snapshot: Snapshot) -> str:
    """Format the progress of a run as one line."""
    jobs = sum(snapshot.counts.values())
    parts = (
        f"{ended_count(snapshot.counts):,} of {jobs:,} finished ({counts_text(snapshot.counts)})",
        rate_text(snapshot),
        spend_text(snapshot),
        time_left_text(snapshot),
    )
    return "; ".join(part for part in parts if part)


def counts_text(counts: Mapping[State, int]) -> str:
    """
    List the states that have jobs.

    >>> counts_text({State.SUCCEEDED: 1200, State.FAILED: 0, State.PENDING: 3})
    '1,200 succeeded, 3 pending'
    """
    return ", ".join(f"{counts[state]:,} {state.label}" for state in STATES if counts.get(state))


def ended_count(counts: Mapping[State, int]) -> int:
    """Count the jobs that this process has finished with."""
    return sum(count for state, count in counts.items() if state.has_ended)


def rate_text(snapshot: Snapshot) -> str:
    """Format the current and the highest allowed rate of submissions, and what limits it."""
    return ", ".join(rate_texts(snapshot))


def rate_texts(snapshot: Snapshot) -> Iterator[str]:
    """Format the parts of `rate_text`, all in one unit."""
    if snapshot.is_stopping:
        yield "no new submissions"
    elif not snapshot.counts[State.PENDING]:
        yield "all jobs submitted"
    else:
        # A rate over the last minute may be higher than what is allowed now.
        rate = min(snapshot.accepted_per_s, snapshot.submit_per_s)
        yield f"submitting {format_per_minute(rate)} (max {format_per_minute(snapshot.submit_per_s)})"
        if snapshot.limited_by:
            yield f"limited by {snapshot.limited_by}"


def spend_text(snapshot: Snapshot) -> str:
    """Format what was spent so far, and reserved; empty if no price is known."""
    return "; ".join(map(str, snapshot.spend))


def time_left_text(snapshot: Snapshot) -> str:
    """Format the estimated time left; empty if it is not known."""
    if not snapshot.seconds_left:
        return ""
    return f"about {format_duration(max(1.0, snapshot.seconds_left))} left"
