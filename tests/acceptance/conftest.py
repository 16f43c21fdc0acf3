"""What holds for all runs of the real program."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def heard_signals() -> Iterator[None]:
    """
    Have the programs that tests start hear Ctrl-C and a hang-up, whatever started the tests.

    A shell's background job ignores the one, and nohup the other; both are inherited, and the runner obeys them.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
