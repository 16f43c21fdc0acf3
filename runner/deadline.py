"""A limit of time that looks at what has arrived before it judges."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from types import TracebackType
from typing import Self

_TURNS = 8
"""Turns of the event loop after the time is over: enough to read a response that is in the socket already."""


class Deadline:
    """
    Cancels the block after some seconds, and raises TimeoutError from it. A context manager in a task.

    It differs from `asyncio.timeout` when the event loop itself wakes up late, because the process was stopped or
    the machine was suspended: timers run before sockets are read, so a response that arrived long ago would count
    as missing. Here the sockets are read first.

    Each request has one, and hardly any expires. So all those of a task share a timer, which stays armed when they
    end: with a timer for each, they took 3 % of a job's time.

    Args:
        seconds: From the entry on.

    Attributes:
        at: When it is over, on the clock of the event loop.
        has_expired: Whether it has canceled its task.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = math.inf
        self.has_expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        timer = _TIMER.get()
        if timer is None or timer.task is not task:
            # A task begins with the variables of the one that made it.
            timer = _TaskTimer(task)
            _TIMER.set(timer)
        self._timer = timer
        self._requests = task.cancelling()
        self.at = timer.loop.time() + self._seconds
        timer.deadlines.append(self)
        if self.at < timer.fires_at:
            timer.arm(self.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.deadlines.remove(self)
        # Somebody else may have canceled the task as well; that goes first.
        is_own = self.has_expired and self._timer.task.uncancel() <= self._requests
        if is_own and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


class _TaskTimer:
    """
    The timer of a task's deadlines, which are those of its blocks that have not ended.

    Attributes:
        fires_at: When it looks at them; infinity if it is not armed.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.loop = task.get_loop()
        self.deadlines: list[Deadline] = []
        self.fires_at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, at: float) -> None:
        """Look at the deadlines at a time, and no longer at a later one."""
        if self._handle is not None:
            self._handle.cancel()
        self.fires_at = at
        self._handle = self.loop.call_at(at, self._look, _TURNS)

    def _look(self, turns: int) -> None:
        now = self.loop.time()
        running = [deadline for deadline in self.deadlines if not deadline.has_expired]
        if turns and any(deadline.at <= now for deadline in running):
            self.loop.call_soon(self._look, turns - 1)
            return
        for deadline in running:
            if deadline.at <= now:
                deadline.has_expired = True
                self.task.cancel()
        self._handle, self.fires_at = None, math.inf
        following = min((deadline.at for deadline in running if not deadline.has_expired), default=None)
        if following is not None:
            self.arm(following)


_TIMER: ContextVar[_TaskTimer | None] = ContextVar("deadline_timer", default=None)
