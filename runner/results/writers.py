"""Write files atomically, append to results files, and rewrite a file with parts of the old one."""

from __future__ import annotations

import errno
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
    Convert an operating system's error that the disk is full, and let any other one name the file.

    Raises:
        DiskFull: The disk, or the user's quota of it, is full.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        # One about an open file names none.
        error.filename = error.filename or str(path)
        raise


class AppendedFile:
    """
    A file that lines are appended to, without an incomplete last line; a context manager, which closes it.

    Raises:
        OSError: It can't be opened, or is a link or a special file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        repair_tail(path)
        self._descriptor = open_own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ResultsWriter(AppendedFile):
    """
    Appends complete lines to a results file, one for each job that ends.

    An appended line may be lost in a power cut, and an incomplete one is removed by the next process. Both
    come back from the store, because the file is written again at the end of each process.

    An open one continues to write to the old file when the file is replaced.
    """

    def __init__(self, path: Path) -> None:
        # What a link leads to is not the run's to change; all lines are written again at the end.
        replace_foreign(path)
        super().__init__(path)
        self._is_own = True
        self._last = self._status()

    def append(self, lines: bytes) -> int:
        """
        Append one or more lines, each with its line feed; readers see them at once.

        Returns:
            Where they start in the file, in bytes.

        Raises:
            DiskFull: There is no space; nothing of the lines is in the file.
        """
        self._is_own = self.is_own
        start = append_whole(self._descriptor, lines, self._path)
        self._last = self._status()
        # Something else may have been appended in between.
        self._is_own = self._is_own and self._last[0] == start + len(lines)
        return start

    @property
    def is_own(self) -> bool:
        """Whether no other program wrote to the file since it was opened."""
        return self._is_own and self._last == self._status()

    def read(self, start: int, count: int) -> bytes:
        """Read bytes of the file that was opened, or fewer at its end, even if it has been replaced."""
        return os.pread(self._descriptor, count, start)

    def _status(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns


def append_whole(descriptor: int, lines: bytes, path: Path) -> int:
    """
    Append to a file all of some lines, or nothing, and return where they start.

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
    return start


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


_CHUNK_BYTES = 1 << 20
_UNSUPPORTED = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Splicer:
    """
    Writes a file, some parts of which come from an old one.

    Parts of the old file are kept or skipped in its order; adjacent parts are copied together, by the kernel where
    it can, so that they need no space of their own on file systems that share blocks.

    Args:
        old: The descriptor of the old file; None without one.
        start: Where the first part begins in it, in bytes.
    """

    def __init__(self, new: BinaryIO, old: int | None, *, start: int = 0) -> None:
        self._new = new
        self._old = old
        self._place = start
        self._kept = 0

    def keep(self, count: int) -> None:
        """Keep the next bytes of the old file."""
        self._kept += count

    def skip(self, count: int) -> None:
        """Leave out the next bytes of the old file."""
        self.flush()
        self._place += count

    def write(self, text: bytes) -> None:
        """Add new text."""
        if text:
            self.flush()
            self._new.write(text)

    def flush(self) -> None:
        """Copy what was kept."""
        if not self._kept or self._old is None:
            return
        self._new.flush()
        end = self._place + self._kept
        while self._place < end:
            copied = _copy(self._old, self._new.fileno(), end - self._place, self._place)
            if not copied:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            self._place += copied
        self._kept = 0


def _copy(source: int, target: int, count: int, start: int) -> int:
    """Copy at most `count` bytes to the end of another file, and return how many."""
    if hasattr(os, "copy_file_range"):
        try:
            if copied := os.copy_file_range(source, target, count, start):
                return copied
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    rest = memoryview(os.pread(source, min(count, _CHUNK_BYTES), start))
    copied = len(rest)
    while rest:
        rest = rest[os.write(target, rest) :]
    return copied
