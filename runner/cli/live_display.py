"""
The display of an active run on a terminal: a few lines that are redrawn in place, and notices above them.

The rows fit any width: nothing that matters is cut, and wide terminals show more.
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from runner.cli.console import wants_color
from runner.cli.displays import (
    COLORS,
    PASSING,
    STATES,
    ended_count,
    event_line,
    rate_texts,
    spend_text,
    stop_line,
)
from runner.core.lifecycle import State
from runner.core.sanitize import sanitize_line
from runner.core.units import format_duration, format_per_minute, format_size
from runner.engine.events import ActiveRun, DownloadProgress, JobEnded, RunEvent, Snapshot

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
        self._title = sanitize_line(title, max_chars=100)
        self._verbose = verbose
        self._started_at = time.monotonic()
        self._failures: deque[str] = deque(maxlen=_MAX_FAILURES)
        self._ended: Counter[str] = Counter()
        self._without_video: Counter[str] = Counter()
        self._bytes = 0
        self._engine: ActiveRun | None = None
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

    def started(self, engine: ActiveRun) -> None:
        """Start to redraw, also after a question."""
        self._title, self._engine = sanitize_line(engine.name, max_chars=100), engine
        self._start()
        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = asyncio.create_task(self._draw(engine), name="display")

    def event(self, event: RunEvent) -> None:
        """Print notices, and with ``verbose`` finished jobs, above the display; list the last failures in it."""
        line = event_line(event)
        if not isinstance(event, JobEnded):
            if event.kind in PASSING:
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

    async def _draw(self, engine: ActiveRun) -> None:
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


_GAP = "  "
_MAX_DOWNLOADS = 4
_MAX_MODELS = 6
_MODELS_FROM = 120
"""Columns from which there is a row for each model."""
_BAR_FROM = 70
"""Columns from which a download has a bar."""

Item = tuple[str, str]
"""A text, and its style."""


class LiveView(Struct, frozen=True):
    """
    What the live display shows.

    Attributes:
        title: The name of the run.
        elapsed_s: Since the process began.
        now: The local time.
        ended_per_s: Jobs that ended over the last minute; None as long as nobody knows.
        bytes: What this process has downloaded of jobs that succeeded.
        ended_by_model: Jobs that ended in this process, as pairs of all and those without a video.
        failures: The last ones, one safe line each.
    """

    title: str
    snapshot: Snapshot
    elapsed_s: float
    now: datetime
    ended_per_s: float | None = None
    bytes: int = 0
    ended_by_model: Mapping[str, tuple[int, int]] = {}
    failures: Sequence[str] = ()


def live_rows(view: LiveView, *, width: int, height: int) -> list[Text]:
    """Return the rows of the display, at most ``height``: the first and the last ones are never left out."""
    snapshot = view.snapshot
    first = [
        *packed(_title(view), width),
        _progress(snapshot, width),
        *packed(_counts(snapshot), width),
        *packed(_rates(view), width),
    ]
    middle = [
        *(_model_rows(view) if width >= _MODELS_FROM else ()),
        *_downloads(snapshot, width),
        *(row for failure in view.failures for row in _failure(failure, width)),
    ]
    last = packed([(_ctrl_c(snapshot, width), "dim")], width)
    space = max(0, height - len(first) - len(last))
    return [*first, *middle[:space], *last][: max(1, height)]


def packed(items: Iterable[Item], width: int) -> list[Text]:
    """Put items side by side into as many rows as they need; only one that is wider than a row is broken."""
    rows: list[Text] = []
    parts = ((part, style) for text, style in items for part in textwrap.wrap(text, max(8, width)))
    for text, style in parts:
        if rows and cell_len(rows[-1].plain) + len(_GAP) + cell_len(text) <= width:
            rows[-1].append(_GAP)
        else:
            rows.append(Text(no_wrap=True, overflow="ellipsis"))
        rows[-1].append(text, style=style)
    return rows


def _title(view: LiveView) -> Iterator[Item]:
    yield view.title, "bold"
    yield format_duration(round(view.elapsed_s)), ""
    if left_s := view.snapshot.seconds_left:
        yield f"about {format_duration(max(1.0, left_s))} left", ""
        yield f"ends about {_time_of_day(view.now, left_s)}", ""


def _time_of_day(now: datetime, left_s: float) -> str:
    ends = now + timedelta(seconds=left_s)
    if ends.date() == now.date():
        return f"{ends:%H:%M}"
    return f"{ends:%a %H:%M}" if ends - now < timedelta(days=6) else f"{ends:%Y-%m-%d}"


def _progress(snapshot: Snapshot, width: int) -> Text:
    finished, jobs = ended_count(snapshot.counts), sum(snapshot.counts.values())
    text = f"{_GAP}{finished:,} of {jobs:,}{_percent(finished, jobs)}"
    return _bar(finished, jobs, max(4, min(width - len(text), 100)), "green").append(text)


def _percent(finished: int, jobs: int) -> str:
    """
    Return a share, exact enough to tell that something was done, and never 100 % before the end.

    >>> _percent(20, 3000), _percent(2999, 3000), _percent(3, 3), _percent(0, 0)
    (' (0.6%)', ' (99%)', ' (100%)', '')
    """
    if not jobs:
        return ""
    tenths = 1000 * finished // jobs
    return f" ({tenths // 10}.{tenths % 10}%)" if 0 < tenths < 100 else f" ({tenths // 10}%)"


def _bar(done: int, total: int, width: int, style: str) -> Text:
    filled = width * done // max(1, total)
    return (
        Text(no_wrap=True, overflow="crop").append("━" * filled, style).append("━" * (width - filled), "dim")
    )


def _counts(snapshot: Snapshot) -> Iterator[Item]:
    for state in STATES:
        count = snapshot.counts.get(state, 0)
        if count or state in (State.SUCCEEDED, State.FAILED):
            limit = f" (max {snapshot.max_in_flight:,})" if state is State.SUBMITTED else ""
            yield f"{count:,} {state.label}{limit}", COLORS.get(state, "") if count else "dim"


def _rates(view: LiveView) -> Iterator[Item]:
    for text in rate_texts(view.snapshot):
        yield text, "dim"
    if view.ended_per_s is not None:
        yield f"finishing {format_per_minute(view.ended_per_s)}", "dim"
    if view.bytes:
        yield f"{format_size(view.bytes)} downloaded", "dim"
    if spend := spend_text(view.snapshot):
        yield spend, "dim"


def _model_rows(view: LiveView) -> Iterator[Text]:
    snapshot = view.snapshot
    models = {*view.ended_by_model, *snapshot.in_flight_by_model, *snapshot.pending_by_model}
    if len(models) < 2:
        return
    size = max(map(len, models))
    for model in sorted(models)[:_MAX_MODELS]:
        ended, failed = view.ended_by_model.get(model, (0, 0))
        failures = f" ({failed:,} without a video)" if failed else ""
        text = (
            f"{model.ljust(size)}  {ended:,} finished{failures}, {snapshot.in_flight_by_model.get(model, 0):,} in flight, "
            f"{snapshot.pending_by_model.get(model, 0):,} pending"
        )
        yield Text(text, no_wrap=True, overflow="ellipsis")
    if len(models) > _MAX_MODELS:
        yield Text(f"and {len(models) - _MAX_MODELS:,} more models", "dim")


def _downloads(snapshot: Snapshot, width: int) -> Iterator[Text]:
    shown = snapshot.downloads[:_MAX_DOWNLOADS]
    for download in shown:
        yield _download(download, width)
    if more := len(snapshot.downloads) - len(shown) + snapshot.downloads_waiting:
        yield Text(f"and {more:,} more to download", "dim")


def _download(download: DownloadProgress, width: int) -> Text:
    done, total = download.bytes, download.total_bytes
    if total:
        size = f"{format_size(done)} of {format_size(total)}"
    else:
        size = format_size(done) if done else "downloading"
    bar_width = 20 if width >= _BAR_FROM else 0
    name = Text(download.job_id, no_wrap=True, overflow="ellipsis")
    # The longest text for a size has 20 characters.
    name.truncate(
        max(8, min(40, width - 20 - bar_width - 2 * len(_GAP))), overflow="ellipsis", pad=bool(bar_width)
    )
    if bar_width:
        name.append(_GAP).append(_bar(done, total or 0, bar_width, "cyan"))
    return name.append(f"{_GAP}{size}")


def _failure(line: str, width: int) -> list[Text]:
    """Give a failure one row, or two on a narrow terminal."""
    if width >= _BAR_FROM:
        return [Text(line, "red", no_wrap=True, overflow="ellipsis")]
    parts = textwrap.wrap(line, max(8, width), max_lines=2, placeholder=" …")
    return [Text(part, "red", no_wrap=True, overflow="crop") for part in parts]


def _ctrl_c(snapshot: Snapshot, width: int) -> str:
    if snapshot.is_stopping:
        return "Ctrl-C: stop now; nothing is lost"
    if width < _BAR_FROM:
        return "Ctrl-C: stop; nothing is lost"
    return "Ctrl-C: submit no more, finish open downloads, and stop; nothing is lost"
