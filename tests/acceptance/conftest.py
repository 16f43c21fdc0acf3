"""Signal handling that all tests of real processes need."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def default_signal_handlers() -> Iterator[None]:
    """
    Restore the default handlers of SIGINT and SIGHUP for the processes that tests start.

    A background job of a shell ignores SIGINT, and nohup ignores SIGHUP. Child processes inherit that, and
    the program honors it.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)
