"""The display of an active run on a terminal: a few lines that are redrawn in place, and notices above them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from runner.cli.console import wants_color
from runner.cli.displays import COLORS, ended_count, event_line, run_title, stop_line
from runner.cli.live_rows import LiveView, live_rows, packed
from runner.core.lifecycle import State
from runner.engine.events import JobEnded, RunEvent, Snapshot

if TYPE_CHECKING:
    from runner.engine.engine import Engine

_REFRESH_EVERY_S = 0.25
_RATE_OVER_S = 60.0
_RATE_FROM_S = 10.0
"""A rate over less time than this would jump."""
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
        self._ended: Counter[str] = Counter()
        self._without_video: Counter[str] = Counter()
        self._bytes = 0
        self._engine: Engine | None = None
        self._samples: deque[tuple[float, int]] = deque()
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
        self._start()

    def _start(self) -> None:
        self._live.start(refresh=True)
        # A process that is killed can't show it again.
        self._console.show_cursor()

    def started(self, engine: Engine) -> None:
        """Start to redraw, also after a question."""
        self._title, self._engine = run_title(engine), engine
        self._start()
        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = asyncio.create_task(self._draw(engine), name="display")

    def event(self, event: RunEvent) -> None:
        """Print notices, and with ``verbose`` finished jobs, above the display; list the last failures in it."""
        line = event_line(event)
        if not isinstance(event, JobEnded):
            if event.kind == "writing":
                self._live.update(self._title_line(event.message), refresh=True)
            elif event.kind == "stopping":
                if line := stop_line(event, self._engine):
                    self._print_above(line, "yellow")
            else:
                self._print_above(line, "yellow")
            return
        self._count(event)
        if event.state is not State.SUCCEEDED:
            self._failures.append(line)
        if self._verbose:
            self._print_above(line, COLORS.get(event.state, ""))

    def close(self) -> None:
        """Clear the display."""
        self._live.stop()

    def _count(self, event: JobEnded) -> None:
        self._ended[event.model] += 1
        if event.state is State.SUCCEEDED:
            self._bytes += event.bytes
        else:
            self._without_video[event.model] += 1

    def _print_above(self, line: str, style: str) -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    async def _draw(self, engine: Engine) -> None:
        while True:
            self._live.update(self._render(engine.snapshot()), refresh=True)
            await asyncio.sleep(_REFRESH_EVERY_S)

    def _title_line(self, text: str) -> Group:
        return _with_end(packed([(self._title, "bold"), (text, "")], self._console.width))

    def _render(self, snapshot: Snapshot) -> Group:
        now = time.monotonic()
        view = LiveView(
            self._title,
            snapshot,
            elapsed_s=now - self._started_at,
            now=datetime.now().astimezone(),
            ended_per_s=self._ended_per_s(now, ended_count(snapshot.counts)),
            bytes=self._bytes,
            ended_by_model={
                model: (count, self._without_video[model]) for model, count in self._ended.items()
            },
            failures=tuple(self._failures),
        )
        # Rows that do not fit would scroll the top out of reach of the next refresh.
        return _with_end(live_rows(view, width=self._console.width, height=self._console.height - 2))

    def _ended_per_s(self, now: float, ended: int) -> float | None:
        samples = self._samples
        samples.append((now, ended))
        while samples[0][0] < now - _RATE_OVER_S:
            samples.popleft()
        since, before = samples[0]
        return None if now - since < _RATE_FROM_S else max(0, ended - before) / (now - since)


def _with_end(rows: Iterable[RenderableType]) -> Group:
    """Add an empty row, where the cursor is left: what comes after a process that is killed begins a line."""
    return Group(*rows, Text())
