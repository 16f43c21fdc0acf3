"""
Files that a user or another file names, used so that none can block the program or fill its memory.

A path may lead to a pipe that nobody writes to, a device without an end, or a sparse file larger than any disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, AnyStr

AnyPath = str | os.PathLike[str]
"""A path as programs give it."""

MAX_LINE = 50_000_000
"""Bytes or characters of a line; the largest image that a model allows fits as base64."""

_PIPE_WAIT_S = 4.0
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_BLOCK = 1 << 16


class LineTooLong(ValueError):
    """
    A line of a file is too long.

    Attributes:
        line: Its number, from 1.
    """

    def __init__(self, line: int, max_line: int) -> None:
        super().__init__(f"the line is longer than {max_line // 1_000_000} MB")
        self.line = line


def open_regular(path: str | Path) -> BufferedReader:
    """
    Open a file for reading without waiting for anything.

    Raises:
        OSError: It is missing, unreadable, or no regular file.
    """
    stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    mode = os.fstat(stream.fileno()).st_mode
    if not stat.S_ISREG(mode):
        stream.close()
        raise _not_regular(mode, path)
    return stream


def require_output(path: str | Path) -> None:
    """
    Check that a file to be rewritten is a regular one, or does not exist yet.

    A link, a pipe or a device, such as ``/dev/stdout``, would be replaced by the file.

    Raises:
        OSError: It is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise _not_regular(mode, path)


def read_small(path: str | Path, max_bytes: int, *, wait_s: float = _PIPE_WAIT_S) -> bytes:
    """
    Read a small file, a pipe or the null device.

    Args:
        wait_s: How long a pipe may be silent.

    Returns:
        The content; one byte more than ``max_bytes`` if there is more.

    Raises:
        OSError: It is missing, unreadable or a device, or a pipe was silent for too long.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if not (is_pipe or stat.S_ISREG(status.st_mode) or _is_null_device(status)):
            raise _not_regular(status.st_mode, path)
        content = b""
        while len(content) <= max_bytes:
            if is_pipe and not select.select([descriptor], [], [], wait_s)[0]:
                raise TimeoutError(errno.ETIMEDOUT, "it is a pipe, and nothing is written to it", str(path))
            block = os.read(descriptor, min(_BLOCK, max_bytes + 1 - len(content)))
            if not block:
                break
            content += block
        return content
    finally:
        os.close(descriptor)


def lines_of(stream: IO[AnyStr], max_line: int = MAX_LINE) -> Iterator[AnyStr]:
    """
    Iterate over the lines of a stream.

    Raises:
        LineTooLong: A line is longer than ``max_line`` bytes or characters; no more than that of it was read.
    """
    number = 0
    while line := stream.readline(max_line + 1):
        number += 1
        if len(line) > max_line:
            raise LineTooLong(number, max_line)
        yield line


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


def _is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev


def _not_regular(mode: int, path: str | Path) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kinds = {
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a symbolic link",
    }
    kind = kinds.get(stat.S_IFMT(mode), "no file")
    return OSError(errno.EINVAL, f"it is {kind}, and must be a regular file", str(path))
