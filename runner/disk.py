"""Disk errors as the program's own, files that are not links, and names that survive a loss of power."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile

from runner.errors import DiskFull, RunDirError

MAX_RESERVE_BYTES = 256 << 20
_HINTS = {
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
    return min(MAX_RESERVE_BYTES, disk_usage(folder).total // 20)


def disk_full(path: str | Path) -> DiskFull:
    """Return the error of a file that found no space."""
    return DiskFull(f"no space left to write {path}", hint=FREE_SPACE_HINT)


def write_error(error: OSError, path: str | Path) -> DiskFull | RunDirError:
    """Return the error of a file that can't be written: what happened and what to do."""
    if is_disk_full(error):
        return disk_full(path)
    return RunDirError(
        f"{path} can't be written: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "make the folder writable, then run the same command again"),
    )


class FileUnwritable(Exception):
    """One file can't be written, though its folder can: something else has its name."""


def asset_error(error: OSError, path: str) -> DiskFull | RunDirError | FileUnwritable:
    """Return the error of an asset's file: if its folder can be written, the error concerns that file alone."""
    if error.errno in _OF_ONE_FILE:
        folder = os.path.dirname(path)
        try:
            with TemporaryFile(dir=folder):
                return FileUnwritable(f"{path} can't be written: {error.strerror}; move away what is there")
        except OSError:
            pass
    return write_error(error, path)


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
