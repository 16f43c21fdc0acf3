"""The pauses before a download is tried again, for which a run that ends does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class RetryPauses:
    """Sleeps until `end`; from then on every sleeper is cancelled, as its download is left to a later run."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._sleepers: set[asyncio.Task[object]] = set()
        self._has_ended = False

    async def sleep(self, seconds: float) -> None:
        """
        Wait.

        Raises:
            CancelledError: The run ends.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._has_ended:
            raise asyncio.CancelledError
        self._sleepers.add(task)
        try:
            await self._sleep(seconds)
        finally:
            self._sleepers.discard(task)

    def end(self) -> None:
        """Cancel every sleeper, now and later."""
        self._has_ended = True
        for task in tuple(self._sleepers):
            task.cancel()
