"""
Ctrl-C, SIGTERM and a closed terminal.

Before the run has begun they end it at once: nothing was sent. From then on the
first one lets it finish what is in hand, the second gives that up, and a third is
the system's own. None of them loses anything: what counts is on disk already.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from runner.core.stop import Stop, StopReason

if TYPE_CHECKING:
    from runner.engine.engine import Engine


class Interrupted(KeyboardInterrupt):
    """
    A signal while no job was under way.

    Attributes:
        exit_code: What the process ends with, as a shell reports the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 130 if number == signal.SIGINT else 143


class Signals:
    """Watches for signals while it is entered; in the main thread only."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._count = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup, or in the background of a script, a signal may be ignored on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def started(self, engine: Engine) -> None:
        """Take the engine that a signal stops from now on; called in its event loop."""
        self._engine, self._loop = engine, asyncio.get_running_loop()

    def ended(self) -> None:
        """Let a signal end the process at once again."""
        self._engine = self._loop = None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        engine, loop = self._engine, self._loop
        if engine is None or loop is None or loop.is_closed():
            raise Interrupted(number)
        self._count += 1
        if self._count == 1:
            loop.call_soon_threadsafe(engine.stop, _stop_of(number))
            return
        for own in self._before:
            signal.signal(own, signal.SIG_DFL)
        loop.call_soon_threadsafe(engine.abandon)


def _stop_of(number: int) -> Stop:
    hint = "once more to stop at once; nothing is lost either way"
    waiting = "submitting no more; waiting for answers and downloads in hand"
    if number == signal.SIGINT:
        return Stop(StopReason.INTERRUPTED, f"interrupted: {waiting}", hint)
    return Stop(StopReason.TERMINATED, f"told to end: {waiting}", hint)
