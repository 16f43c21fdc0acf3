"""
Files on the disk: opened so that none can block the program, fill its memory or lead elsewhere; names that survive a loss of
power; and disk errors as the program's own.

A path that a user or another file names may lead to a pipe that nobody writes to, a device without an end, or a sparse file
larger than any disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, AnyStr

from runner.errors import DiskFull, RunDirError, UsageError

MAX_RESERVE_BYTES = 256 << 20
MOVED_HINT = "continue with the directory at its new place: runner resume DIR"
_HINTS = {
    errno.ENOENT: MOVED_HINT,
    errno.EROFS: "the file system is read-only: check the disk, then run the same command again",
    errno.EIO: "the disk failed: check it, then run the same command again",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), then run the same command again",
    errno.ENFILE: "too many files are open on this machine; run the same command again later",
}
_OF_ONE_FILE = frozenset(
    {errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENXIO}
    | {errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EILSEQ}
)
FREE_SPACE_HINT = "free some space, then run the same command again; nothing that was paid for is lost"


def is_disk_full(error: OSError) -> bool:
    """Return whether the disk, or the user's quota of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def reserve_bytes(folder: str | Path) -> int:
    """
    Return the space to leave free on a folder's disk, above all for the store and the results.

    Raises:
        OSError: The folder can't be examined.
    """
    # Both take milliseconds to import, and commands that only read files need neither.
    from shutil import disk_usage

    return min(MAX_RESERVE_BYTES, disk_usage(folder).total // 20)


def disk_full(path: str | Path) -> DiskFull:
    """Return the error of a file that found no space."""
    return DiskFull(f"no space left to write {path}", hint=FREE_SPACE_HINT)


def write_error(error: OSError, path: str | Path) -> DiskFull | RunDirError:
    """Return the error of a file that can't be written: what happened and what to do."""
    if is_disk_full(error):
        return disk_full(path)
    why = "its folder was moved or deleted" if error.errno == errno.ENOENT else error.strerror or error
    return RunDirError(
        f"{path} can't be written: {why}",
        hint=_HINTS.get(error.errno or 0, "make the folder writable, then run the same command again"),
    )


class FileUnwritable(Exception):
    """One file can't be written, though its folder can: something else has its name."""


def asset_error(error: OSError, path: str) -> DiskFull | RunDirError | FileUnwritable:
    """Return the error of an asset's file: if its folder can be written, the error concerns that file alone."""
    if error.errno in _OF_ONE_FILE:
        from tempfile import TemporaryFile

        folder = os.path.dirname(path)
        try:
            with TemporaryFile(dir=folder):
                return FileUnwritable(f"{path} can't be written: {error.strerror}; move away what is there")
        except OSError:
            pass
    return write_error(error, path)


def require_encodable(names: Iterable[str | Path]) -> None:
    """
    Check that files can have these names in the encoding of names that this process has; UTF-8 has them all.

    Raises:
        UsageError: They can't, because a locale chose another one.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    name: str | Path = ""
    try:
        for name in names:
            os.fsencode(name)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"no file can be called {str(name)!a} here, where names are in {error.encoding}",
            hint="set PYTHONUTF8=1, or choose a locale with UTF-8, before Python starts",
        ) from None


def sync_folder(folder: str | Path) -> None:
    """
    Make the names in a folder durable. Windows does that by itself, and can't open folders.

    Raises:
        OSError: The disk failed, or the folder can't be read.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def open_own(path: str | Path, flags: int, mode: int = 0o666) -> int:
    """
    Open a file of a run directory to write to it, and return its descriptor.

    The directory may be somebody else's, unpacked from an archive: a link in it would lead to a file outside,
    and opening a FIFO would wait forever. The flags must not have ``O_TRUNC``, which works before any check.

    Raises:
        OSError: It can't be opened, or it is a link, has a second name, or is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | _NO_LINK, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "it is a pipe that nobody reads", str(path)) from None
        raise
    if is_own(status := os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    what = "it is not a regular file" if status.st_nlink == 1 else "it has a second name (a hard link)"
    raise OSError(errno.EINVAL, what, str(path))


def is_own(status: os.stat_result) -> bool:
    """Return whether a file is a regular one that has one name only."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def replace_foreign(path: str | Path) -> None:
    """
    Delete a link or a special file at a path where a file of a run directory is to be; what a link leads to is left.

    Raises:
        OSError: It can't be deleted, as a folder can't.
    """
    try:
        if not is_own(os.lstat(path)):
            os.unlink(path)
    except FileNotFoundError:
        return


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
