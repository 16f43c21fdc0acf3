"""Write files atomically, and append to results files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from runner.disk import disk_full, is_disk_full, open_own, replace_foreign, sync_folder
from runner.jsontext import loads

_BUFFER_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 16


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """
    Write a temporary file, and rename it to the path when the block ends.

    The content is durable before the name is; a reader sees the old file or the new one, never a part. If the
    block raises, the old file remains and the temporary file is removed.

    Raises:
        DiskFull: There is no space for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with translate_disk_full(path):
            temporary.unlink(missing_ok=True)
            # Created exclusively, so that a link planted at the temporary name is not followed.
            with temporary.open("xb", buffering=_BUFFER_BYTES) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def translate_disk_full(path: Path) -> Iterator[None]:
    """
    Convert an operating system's error that the disk is full.

    Raises:
        DiskFull: The disk, or the user's quota of it, is full.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full(path) from error


class ResultsWriter:
    """
    Appends complete lines to a results file, one for each job that ends.

    An appended line may be lost in a power cut, and an incomplete one is removed by the next process. Both
    come back from the store, because the file is written again at the end of each process.

    Close it before the file is replaced: an open one would continue to write to the old file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # What a link leads to is not the run's to change; all lines are written again at the end.
        replace_foreign(path)
        repair_tail(path)
        self._descriptor = open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def append(self, lines: bytes) -> None:
        """
        Append one or more lines, each with its line feed; readers see them at once.

        Raises:
            DiskFull: There is no space; nothing of the lines is in the file.
        """
        append_whole(self._descriptor, lines, self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def append_whole(descriptor: int, lines: bytes, path: Path) -> None:
    """
    Append to a file all of some lines, or nothing.

    Raises:
        DiskFull: There is no space; nothing of the lines is in the file.
    """
    start = os.fstat(descriptor).st_size
    rest = memoryview(lines)
    try:
        with translate_disk_full(path):
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.ftruncate(descriptor, start)
        raise


def repair_tail(path: Path) -> int:
    """
    Remove an incomplete last line, which a dead process left, from a results file.

    If the last line is complete except for its line feed (as editors leave it), that is added.

    Returns:
        How many bytes were removed.
    """
    try:
        descriptor = open_own(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    with os.fdopen(descriptor, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = _last_line_start(file.fileno(), size)
        if start == size:
            return 0
        if _is_json(os.pread(file.fileno(), size - start, start)):
            file.write(b"\n")
            return 0
        file.truncate(start)
    return size - start


def _last_line_start(descriptor: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(loads(text), dict)
    except (ValueError, RecursionError):
        return False
