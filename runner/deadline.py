"""A limit of time that looks at what has arrived before it judges."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_TURNS = 8
"""Turns of the event loop after the time is over: enough to read a response that is in the socket already."""


class Deadline:
    """
    Cancels the block after some seconds, and raises TimeoutError from it. A context manager in a task.

    It differs from `asyncio.timeout` when the event loop itself wakes up late, because the process was stopped or
    the machine was suspended: timers run before sockets are read, so a response that arrived long ago would count
    as missing. Here the sockets are read first. It also takes a third of the time, and each request has one.

    Args:
        seconds: From the entry on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_expired = False

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task = task
        self._requests = task.cancelling()
        self._handle: asyncio.Handle = self._loop.call_later(self._seconds, self._expire, _TURNS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # Somebody else may have canceled the task as well; that goes first.
        is_own = self._has_expired and self._task.uncancel() <= self._requests
        if is_own and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def _expire(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._expire, turns - 1)
        else:
            self._has_expired = True
            self._task.cancel()
