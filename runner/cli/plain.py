"""Watching a run without a terminal: a line at the start, on what is notable, and now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runner.cli.console import say
from runner.cli.wording import at_rest, counts_text, event_line, left_text, rate_text
from runner.core.lifecycle import State
from runner.engine.events import Event, JobEnded, Notice, Snapshot

if TYPE_CHECKING:
    from runner.engine.engine import Engine

EVERY_S = 30.0
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
        say(f"{self._title}: {counts_text(engine.counts)}")
        self._ticking = asyncio.create_task(self._tick(engine), name="display")

    def event(self, event: Event) -> None:
        """Show what is notable."""
        is_known_soon = isinstance(event, Notice) and event.kind == "writing"
        if self._verbose or not (isinstance(event, JobEnded) or is_known_soon):
            say(event_line(event))
        elif isinstance(event, JobEnded) and event.state is not State.SUCCEEDED:
            self._failure(event)

    def _failure(self, event: JobEnded) -> None:
        self._failures += 1
        if self._failures <= MOST_FAILURES_SHOWN:
            say(event_line(event))
        elif self._failures == MOST_FAILURES_SHOWN + 1:
            say("further jobs that do not succeed are only counted; --verbose shows each")

    async def _tick(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            say(progress_line(engine.snapshot()))


def progress_line(snapshot: Snapshot) -> str:
    """Say in a line how far a run is."""
    jobs = sum(snapshot.counts.values())
    parts = (
        f"{at_rest(snapshot.counts):,} of {jobs:,} done ({counts_text(snapshot.counts)})",
        rate_text(snapshot),
        left_text(snapshot),
    )
    return "; ".join(part for part in parts if part)
