"""Disk errors as the program's own, and names that survive a loss of power."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from runner.errors import DiskFull, RunDirError

FREE_SPACE_HINT = "free some space, then run the same command again; nothing that was paid for is lost"


def is_disk_full(error: OSError) -> bool:
    """Return whether the disk, or the user's quota of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(path: str | Path) -> DiskFull:
    """Return the error of a file that found no space."""
    return DiskFull(f"no space left to write {path}", hint=FREE_SPACE_HINT)


def write_error(error: OSError, path: str | Path) -> DiskFull | RunDirError:
    """Return the error of a file that can't be written: what happened and what to do."""
    if is_disk_full(error):
        return disk_full(path)
    return RunDirError(
        f"{path} can't be written: {error.strerror or error}",
        hint="make the folder writable, then run the same command again",
    )


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
