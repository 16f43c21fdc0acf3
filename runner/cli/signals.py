"""
Ctrl-C, SIGTERM and a closed terminal.

Before the run has started, a signal ends the process at once: nothing was sent. After that the first signal
stops submissions and lets active requests and downloads finish, the second abandons them, and a third is
handled by the system. None of them loses anything, because everything that matters is already on disk.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from runner.core.stop import Stop, StopReason
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.engine.events import ActiveRun


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
    """A context manager that handles signals; for the main thread only."""

    def __init__(self) -> None:
        self._engine: ActiveRun | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
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

    def started(self, engine: ActiveRun) -> None:
        """Stop this engine at a signal from now on; called in its event loop."""
        self._engine, self._loop = engine, asyncio.get_running_loop()

    def ended(self) -> None:
        """End the process at a signal again."""
        self._engine = self._loop = None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        engine, loop = self._engine, self._loop
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


def serve_until_signal(server: Coroutine[None, None, None], port: int) -> None:
    """
    Run a server until Ctrl-C or SIGTERM.

    Raises:
        UsageError: It can't listen on the port.
    """

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await server

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        return
    except OSError as error:
        raise UsageError(
            f"can't listen on port {port}: {error.strerror or error}",
            hint="choose another --port, or leave the option out to use a free one",
        ) from None
