"""Watching a run on a terminal: a few lines that stay in place, with what is worth keeping scrolled above them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.cli.console import (
    COLOURS,
    LABELS,
    at_rest,
    counts_text,
    echo_stderr,
    event_line,
    left_text,
    rate_text,
    wants_color,
)
from runner.core.lifecycle import State
from runner.core.units import format_duration, format_size
from runner.engine.events import DownloadProgress, JobEnded, Notice, RunEvent, Snapshot

if TYPE_CHECKING:
    from runner.engine.engine import Engine


REFRESH_EVERY_S = 0.25
MOST_DOWNLOADS = 4
MOST_FAILURES = 3


class LiveDisplay:
    """
    Draws on stderr four times a second, from the event loop itself, so that nothing is looked at half changed.

    Foreign text goes in as `Text`, which is never read as markup, after `wording` has made it one safe line.
    """

    def __init__(self, title: str, *, verbose: bool) -> None:
        self._title = title
        self._verbose = verbose
        self._began = time.monotonic()
        self._failures: deque[str] = deque(maxlen=MOST_FAILURES)
        self._drawing: asyncio.Task[None] | None = None
        self._console = Console(stderr=True, file=sys.stderr, no_color=not wants_color(), highlight=False)
        self._live = Live(
            self._line("reading the manifest"),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def close(self) -> None:
        """Clear what was drawn, so that the end of the run stands alone."""
        self._live.stop()

    def started(self, engine: Engine) -> None:
        """Draw from now on."""
        self._drawing = asyncio.create_task(self._draw(engine), name="display")

    def event(self, event: RunEvent) -> None:
        """Take in what happened; notices and, where wanted, every job stay above the display."""
        line = event_line(event)
        if not isinstance(event, JobEnded):
            if event.kind == "writing":
                self._live.update(self._line(event.message), refresh=True)
            else:
                self._above(line, "yellow")
            return
        if event.state is not State.SUCCEEDED:
            self._failures.append(line)
        if self._verbose:
            self._above(line, COLOURS.get(event.state, ""))

    def _above(self, line: str, style: str) -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    async def _draw(self, engine: Engine) -> None:
        while True:
            self._live.update(self._view(engine.snapshot()), refresh=True)
            await asyncio.sleep(REFRESH_EVERY_S)

    def _line(self, text: str) -> Text:
        return _one_line(Text.assemble((self._title, "bold"), f"  {text}"))

    def _view(self, snapshot: Snapshot) -> RenderableType:
        elapsed = format_duration(round(time.monotonic() - self._began))
        left = left_text(snapshot)
        jobs, done = sum(snapshot.counts.values()), at_rest(snapshot.counts)
        rows: list[RenderableType] = [
            self._line(f"{elapsed}, {left}" if left else elapsed),
            _bar_row(done, jobs),
            _counts_row(snapshot),
            _one_line(Text(rate_text(snapshot), style="dim")),
        ]
        rows += [_download_row(fetching) for fetching in snapshot.downloads[:MOST_DOWNLOADS]]
        if waiting := len(snapshot.downloads[MOST_DOWNLOADS:]) + snapshot.downloads_waiting:
            rows.append(Text(f"and {waiting:,} more to download", style="dim"))
        rows += [_one_line(Text(failure, style="red")) for failure in self._failures]
        # What does not fit would push the top out of reach of the next drawing.
        return Group(*rows[: max(1, self._console.height - 1)])


def _bar_row(done: int, jobs: int) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_column()
    row.add_column(no_wrap=True)
    share = f" ({100 * done // jobs} %)" if jobs else ""
    row.add_row(
        ProgressBar(total=max(1, jobs), completed=done, width=40, complete_style="green"),
        f"{done:,} of {jobs:,}{share}",
    )
    return row


def _counts_row(snapshot: Snapshot) -> Text:
    text = Text()
    for state, label in LABELS.items():
        count = snapshot.counts.get(state, 0)
        if not count and state not in (State.SUCCEEDED, State.FAILED):
            continue
        shown = f"{count:,}" if state is not State.SUBMITTED else f"{count:,} of {snapshot.max_in_flight:,}"
        text.append(f"{shown} {label}", style=COLOURS.get(state, "") if count else "dim")
        text.append("  ")
    return _one_line(text)


def _download_row(fetching: DownloadProgress) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_column(no_wrap=True, max_width=30, overflow="ellipsis")
    row.add_column()
    row.add_column(no_wrap=True)
    if fetching.total_bytes:
        bar = ProgressBar(
            total=fetching.total_bytes, completed=fetching.bytes, width=20, complete_style="cyan"
        )
        sizes = f"{format_size(fetching.bytes)} of {format_size(fetching.total_bytes)}"
        row.add_row(Text(fetching.job_id), bar, sizes)
    else:
        row.add_row(
            Text(fetching.job_id), "downloading", format_size(fetching.bytes) if fetching.bytes else ""
        )
    return row


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


LOG_EVERY_S = 30.0
MOST_FAILURES_SHOWN = 10


class PlainDisplay:
    """
    Writes lines to stderr.

    Args:
        verbose: Whether every job that ends has a line, not only the first few that did not succeed.
    """

    def __init__(self, title: str, *, verbose: bool) -> None:
        self._title = title
        self._verbose = verbose
        self._failures = 0
        self._ticking: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Have nothing to clear away."""

    def started(self, engine: Engine) -> None:
        """Say where the run stands, and from now on every half minute."""
        echo_stderr(f"{self._title}: {counts_text(engine.counts)}")
        self._ticking = asyncio.create_task(self._tick(engine), name="display")

    def event(self, event: RunEvent) -> None:
        """Show what is notable."""
        is_known_soon = isinstance(event, Notice) and event.kind == "writing"
        if self._verbose or not (isinstance(event, JobEnded) or is_known_soon):
            echo_stderr(event_line(event))
        elif isinstance(event, JobEnded) and event.state is not State.SUCCEEDED:
            self._failure(event)

    def _failure(self, event: JobEnded) -> None:
        self._failures += 1
        if self._failures <= MOST_FAILURES_SHOWN:
            echo_stderr(event_line(event))
        elif self._failures == MOST_FAILURES_SHOWN + 1:
            echo_stderr("further jobs that do not succeed are only counted; --verbose shows each")

    async def _tick(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            echo_stderr(progress_line(engine.snapshot()))


def progress_line(snapshot: Snapshot) -> str:
    """Say in a line how far a run is."""
    jobs = sum(snapshot.counts.values())
    parts = (
        f"{at_rest(snapshot.counts):,} of {jobs:,} done ({counts_text(snapshot.counts)})",
        rate_text(snapshot),
        left_text(snapshot),
    )
    return "; ".join(part for part in parts if part)
