"""
Standard streams that never change how a command ends.

A cron job or a service may start the program with closed streams, a disk under them may be full, and a
terminal's encoding may lack most characters.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MODES = ("r", "w", "w")
"""How stdin, stdout and stderr are opened."""


def prepare_streams() -> None:
    """Open the streams that are closed, and replace those for output by ones that can't fail."""
    _open_closed()
    sys.stdin = sys.stdin or open(0, encoding="utf-8", errors="replace")  # noqa: SIM115 - for good
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

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some or all of the bytes, and return how many."""
        if self._is_dropped:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_dropped = True
            if isinstance(error, BrokenPipeError) and not self._is_for_people:
                raise
            return memoryview(data).nbytes


def _output(number: int, stream: TextIO | None, *, is_for_people: bool) -> TextIO:
    raw = _Output(number, is_for_people=is_for_people)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="replace",
        line_buffering=is_for_people or raw.isatty(),
    )
