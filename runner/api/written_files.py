"""Which derived files a process wrote, so that the next one knows whether it can take over parts of them."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from runner.core.filenames import BLOCKS_NAME, FAILED_NAME, RESULTS_NAME
from runner.version import __version__


class Written(Struct, frozen=True):
    """
    The files that the blocks belong to.

    Attributes:
        content: What the content of the files depends on beside the jobs.
        files: Of results, `failed.yaml` and blocks: inode, size, and time of change; null for one that is not there.
        failed_start: Where the jobs begin in `failed.yaml`, in bytes.
    """

    content: list[str]
    files: list[tuple[int, int, int] | None]
    failed_start: int


def written(run_dir: Path, *, run: str, gateway: str, failed_start: int) -> Written:
    """Return what the derived files in a directory are now."""
    names = (RESULTS_NAME, FAILED_NAME, BLOCKS_NAME)
    files = [_identity(run_dir / name) for name in names]
    return Written([__version__, run, gateway, str(run_dir)], files, failed_start)


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_if_same(path: Path, identity: tuple[int, int, int] | None, *, has_grown: bool = False) -> int | None:
    """
    Open a file that an earlier process wrote; None if it is not that one any more.

    Args:
        has_grown: Whether lines may have been appended to it since.
    """
    if identity is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    inode, size, changed_at = identity
    is_same = (status.st_ino, status.st_size, status.st_mtime_ns) == (inode, size, changed_at)
    if is_same or (has_grown and status.st_ino == inode and status.st_size >= size):
        return descriptor
    os.close(descriptor)
    return None
