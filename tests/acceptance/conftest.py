"""Signal handling that all tests of real processes need."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of this folder: each starts processes, which takes a second or more."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.acceptance)
        item.add_marker(pytest.mark.slow)


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
