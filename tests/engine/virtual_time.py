"""An event loop whose clock jumps: an hour in which nothing happens passes at once."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_VIRTUAL_S = 30 * 24 * 3600.0
"""Virtual time after which a run that has not ended counts as hanging."""

_MAX_REAL_WAIT_S = 20.0


class Hang(BaseException):
    """Nothing will ever happen again. Not an `Exception`, so that nothing catches it as a job's own error."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    A loop on virtual time. Executors run inline; for other threads, `is_busy` says to wait in real time.
    """

    def __init__(self) -> None:
        self.virtual_now = 0.0
        self.is_busy: Callable[[], bool] = lambda: False
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.virtual_now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._waiting_since: float | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            self._waiting_since = None
            return ready
        if self._loop.is_busy() or timeout is None:
            return self._wait()
        self._loop.virtual_now += timeout
        if self._loop.virtual_now > MAX_VIRTUAL_S:
            raise Hang(f"not ended after {MAX_VIRTUAL_S:g} s")
        return []

    def _wait(self) -> list[Any]:
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > _MAX_REAL_WAIT_S:
            raise Hang("nothing is scheduled, and nothing will wake the loop")
        return super().select(0.02)


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop with virtual time."""
    loops: list[VirtualLoop] = []

    def make() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[0]

    with asyncio.Runner(loop_factory=make) as runner:
        runner.get_loop()
        return runner.run(main(loops[0]))
