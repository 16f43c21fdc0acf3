"""Write a new file from parts of an old one and from new text, without reading what stays as it is."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

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
        """Take over so many bytes of the old file."""
        self._kept += count

    def skip(self, count: int) -> None:
        """Leave out so many bytes of the old file."""
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
    """Copy at most so many bytes to the end of another file, and return how many."""
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
