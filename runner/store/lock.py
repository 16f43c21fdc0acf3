"""
Only one process at a time uses a run directory.

An advisory lock on ``.lock``, which the kernel releases when the process ends, however it ends. The file
names its holder, for the message that others get. After a crash its content is outdated and harmless,
because only the lock itself counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.core.filenames import LOCK_NAME
from runner.errors import RunLocked


class RunLock:
    """
    Exclusive use of a run directory, during a ``with`` block.

    Raises:
        RunLocked: Another process has the lock; the message names its pid and host.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._fd = -1

    def __enter__(self) -> Self:
        # Not truncated when it is opened: until we have the lock, the content is the holder's.
        fd = os.open(self._run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _acquire(fd):
            holder = _describe(os.pread(fd, 1000, 0))
            os.close(fd)
            raise RunLocked(
                f"{self._run_dir} is in use by {holder}",
                hint=f"wait for it, or watch it: runner status {self._run_dir}",
            )
        # On a full disk the file can't name the holder, but the lock works all the same.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, _holder_json(), 0)
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _acquire(fd: int) -> bool:
    # More than one try, because `status` has the lock for a moment when it checks who has it.
    for wait_s in (0.0, 0.02, 0.1):
        time.sleep(wait_s)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def holder_of(run_dir: Path) -> str | None:
    """Return which process uses a run directory, as text, or None."""
    try:
        fd = os.open(run_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _describe(os.pread(fd, 1000, 0))
    finally:
        os.close(fd)
    return None


def _holder_json() -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode()


def _describe(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on host {holder['host']} (since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
