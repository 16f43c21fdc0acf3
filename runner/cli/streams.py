"""
Standard streams that never change how a command ends.

A cron job or a service may start the program with closed streams, a disk under them may be full, a terminal's
encoding may lack most characters, and nobody may read what is printed.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MAX_WAITING_BYTES = 1 << 20
_PIECE_BYTES = 4096
"""A pipe that has room takes that much at once."""
_PATIENCE_S = 2.0
"""How long a reader may take nothing, at the end of a run, until the rest is dropped."""

_MODES = ("r", "w", "w")
"""How stdin, stdout and stderr are opened."""


def prepare_streams() -> None:
    """Open the streams that are closed, and replace those for output by ones that can't fail."""
    _open_closed()
    sys.stdin = sys.stdin or open(0, encoding="utf-8", errors="replace")  # noqa: SIM115 - it stays open
    sys.stdout = _output(1, sys.stdout, is_for_people=False)
    sys.stderr = _output(2, sys.stderr, is_for_people=True)


def _open_closed() -> None:
    # The next file or socket to be opened would take a free number, and get what is printed.
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            os.set_inheritable(number, True)


class _Output(io.FileIO):
    """
    Drops what can't be written.

    Only a reader of data that went away is an error, once, because an endless command must then end.
    """

    def __init__(self, number: int, *, is_for_people: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._is_dropped = False
        self._is_for_people = is_for_people
        self._queue: _Queue | None = None

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Hand what is written in this block to a thread, so that a reader that does not read holds nothing up."""
        with suppress(OSError):
            if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                self._queue = _Queue(super().write)
        try:
            yield
        finally:
            queue, self._queue = self._queue, None
            if queue is not None and not queue.close():
                self._is_dropped = True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some or all of the bytes, and return how many."""
        if self._is_dropped:
            return memoryview(data).nbytes
        if self._queue is not None:
            self._queue.put(bytes(data))
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_dropped = True
            if isinstance(error, BrokenPipeError) and not self._is_for_people:
                raise
            return memoryview(data).nbytes


class _Queue:
    """
    Writes in a thread, in order; drops what comes while too much waits.

    Args:
        write: Writes some or all of the bytes, and returns how many; it may block.
    """

    def __init__(self, write: Callable[[bytes], int | None]) -> None:
        self._write = write
        self._waiting: deque[bytes] = deque()
        self._bytes = self._written = 0
        self._is_closing = False
        self._changed = threading.Condition()
        # A daemon, because a write that blocks forever must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Add what is to be written next, unless too much waits."""
        with self._changed:
            if self._bytes + len(data) <= _MAX_WAITING_BYTES:
                self._waiting.append(data)
                self._bytes += len(data)
                self._changed.notify_all()

    def close(self) -> bool:
        """Wait until all is written, as long as the reader reads; return whether it is."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            while self._bytes:
                written = self._written
                if not self._changed.wait_for(lambda: self._written > written, timeout=_PATIENCE_S):  # noqa: B023
                    return False
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                data = self._waiting.popleft()
            rest = data
            with suppress(OSError):
                while rest:
                    count = self._write(rest[:_PIECE_BYTES]) or 0
                    rest = rest[count:]
                    with self._changed:
                        self._written += count
                        self._changed.notify_all()
            with self._changed:
                self._bytes -= len(data)
                self._written += 1
                self._changed.notify_all()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Never wait for the reader of stderr in this block: what it does not read in time is dropped."""
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    with raw.without_waiting() if isinstance(raw, _Output) else nullcontext():
        yield


def _output(number: int, stream: TextIO | None, *, is_for_people: bool) -> TextIO:
    raw = _Output(number, is_for_people=is_for_people)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="replace",
        line_buffering=is_for_people or raw.isatty(),
    )
