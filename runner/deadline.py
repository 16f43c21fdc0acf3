"""A limit of time that looks at what has arrived before it judges."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_TURNS = 8
"""Turns of the event loop after the time is over: enough to read a response that is in the socket already."""


class Deadline:
    """
    Cancels the block after some seconds, and raises TimeoutError from it. An async context manager.

    It differs from `asyncio.timeout` when the event loop itself wakes up late, because the process was stopped or
    the machine was suspended: timers run before sockets are read, so a response that arrived long ago would count
    as missing. Here the sockets are read first.

    Args:
        seconds: From the entry on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._handle: asyncio.Handle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._expire, _TURNS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _expire(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            self._handle = loop.call_soon(self._expire, turns - 1)
        else:
            self._timeout.reschedule(loop.time())
