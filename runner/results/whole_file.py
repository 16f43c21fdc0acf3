"""Files that have their name only when they are whole and durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.errors import DiskFull

_BUFFER_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """
    Write a file beside its place, and move it there when the block ends.

    The content is durable before the name is; a reader sees the old file or the new
    one, never a part. When the block raises, the old file stays and nothing is left.

    Raises:
        DiskFull: There is no room for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            temporary.unlink(missing_ok=True)
            # Created anew, so that a link planted at the temporary name is not followed.
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
def room_for(path: Path) -> Iterator[None]:
    """
    Turn "no space left" into the error that says so.

    Raises:
        DiskFull: The disk or the user's share of it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"no room left for {path}", hint="free some space; the same command again writes it"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
