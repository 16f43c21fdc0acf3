"""The display of an active run on a terminal: a few lines that are redrawn in place, and notices above them."""

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

from runner.cli.console import wants_color
from runner.cli.displays import COLORS, STATES, ended_count, event_line, rate_text, spend_text, time_left_text
from runner.core.lifecycle import State
from runner.core.units import format_duration, format_size
from runner.engine.events import DownloadProgress, JobEnded, RunEvent, Snapshot

if TYPE_CHECKING:
    from runner.engine.engine import Engine

_REFRESH_EVERY_S = 0.25
_MAX_DOWNLOADS = 4
_MAX_FAILURES = 3


class LiveDisplay:
    """
    Redraws a few lines on stderr four times a second, from the event loop, so that a snapshot is consistent.

    Foreign text is passed to rich as `Text`, which is never parsed as markup, after `event_line` made it safe.
    """

    def __init__(self, title: str, *, verbose: bool) -> None:
        self._title = title
        self._verbose = verbose
        self._started_at = time.monotonic()
        self._failures: deque[str] = deque(maxlen=_MAX_FAILURES)
        self._drawing: asyncio.Task[None] | None = None
        self._console = Console(stderr=True, file=sys.stderr, no_color=not wants_color(), highlight=False)
        self._live = Live(
            self._title_line("starting"),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def started(self, engine: Engine) -> None:
        """Start to redraw, also after a question."""
        self._live.start()
        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = asyncio.create_task(self._draw(engine), name="display")

    def event(self, event: RunEvent) -> None:
        """Print notices, and with ``verbose`` finished jobs, above the display; list the last failures in it."""
        line = event_line(event)
        if not isinstance(event, JobEnded):
            if event.kind == "writing":
                self._live.update(self._title_line(event.message), refresh=True)
            else:
                self._print_above(line, "yellow")
            return
        if event.state is not State.SUCCEEDED:
            self._failures.append(line)
        if self._verbose:
            self._print_above(line, COLORS.get(event.state, ""))

    def close(self) -> None:
        """Clear the display."""
        self._live.stop()

    def _print_above(self, line: str, style: str) -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    async def _draw(self, engine: Engine) -> None:
        while True:
            self._live.update(self._render(engine.snapshot()), refresh=True)
            await asyncio.sleep(_REFRESH_EVERY_S)

    def _title_line(self, text: str) -> Text:
        return _one_line(Text.assemble((self._title, "bold"), f"  {text}"))

    def _render(self, snapshot: Snapshot) -> RenderableType:
        elapsed = format_duration(round(time.monotonic() - self._started_at))
        time_left = time_left_text(snapshot)
        rows: list[RenderableType] = [
            self._title_line(f"{elapsed}, {time_left}" if time_left else elapsed),
            _progress_row(ended_count(snapshot.counts), sum(snapshot.counts.values())),
            _counts_row(snapshot),
            _one_line(Text(rate_text(snapshot), style="dim")),
        ]
        if snapshot.spend:
            rows.append(_one_line(Text(spend_text(snapshot), style="dim")))
        rows += [_download_row(download) for download in snapshot.downloads[:_MAX_DOWNLOADS]]
        if more := len(snapshot.downloads[_MAX_DOWNLOADS:]) + snapshot.downloads_waiting:
            rows.append(Text(f"and {more:,} more to download", style="dim"))
        rows += [_one_line(Text(failure, style="red")) for failure in self._failures]
        # Rows that do not fit would scroll the top out of reach of the next refresh.
        return Group(*rows[: max(1, self._console.height - 1)])


def _progress_row(finished: int, jobs: int) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_column()
    row.add_column(no_wrap=True)
    percent = f" ({100 * finished // jobs}%)" if jobs else ""
    row.add_row(
        ProgressBar(total=max(1, jobs), completed=finished, width=40, complete_style="green"),
        f"{finished:,} of {jobs:,}{percent}",
    )
    return row


def _counts_row(snapshot: Snapshot) -> Text:
    text = Text()
    for state in STATES:
        count = snapshot.counts.get(state, 0)
        if not count and state not in (State.SUCCEEDED, State.FAILED):
            continue
        limit = f" (max {snapshot.max_in_flight:,})" if state is State.SUBMITTED else ""
        text.append(f"{count:,} {state.label}{limit}", style=COLORS.get(state, "") if count else "dim")
        text.append("  ")
    return _one_line(text)


def _download_row(download: DownloadProgress) -> RenderableType:
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_column(no_wrap=True, max_width=30, overflow="ellipsis")
    row.add_column()
    row.add_column(no_wrap=True)
    done, total = download.bytes, download.total_bytes
    if total:
        bar = ProgressBar(total=total, completed=done, width=20, complete_style="cyan")
        row.add_row(Text(download.job_id), bar, f"{format_size(done)} of {format_size(total)}")
    else:
        row.add_row(Text(download.job_id), "downloading", format_size(done) if done else "")
    return row


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
