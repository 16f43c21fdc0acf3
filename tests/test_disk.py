"""Disk errors as the program's own."""

from __future__ import annotations

import errno
import os

import pytest

from runner.disk import write_error
from runner.errors import DiskFull, RunDirError


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, DiskFull, "no space left to write out/a.mp4"),
        (errno.EDQUOT, DiskFull, "no space left to write out/a.mp4"),
        (errno.EACCES, RunDirError, "out/a.mp4 can't be written: Permission denied"),
        (errno.ENOENT, RunDirError, "out/a.mp4 can't be written: its folder was moved or deleted"),
        (errno.EIO, RunDirError, "out/a.mp4 can't be written: Input/output error"),
    ],
)
def test_write_errors(number: int, kind: type[Exception], message: str) -> None:
    """A full disk, or a used-up quota, is told apart from a file that can't be written."""
    error = write_error(OSError(number, os.strerror(number)), "out/a.mp4")

    assert (kind, message) == (type(error), error.message)
    assert error.hint is not None
