"""
One process at a time in a run directory.

An advisory lock on ``.lock`` that the kernel drops with the process, however it
dies. The file names its holder for the message that others get; what it says
after a crash is stale and harmless, since only the lock itself counts.
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

from runner.errors import RunLocked

LOCK_NAME = ".lock"


class RunLock:
    """
    Exclusive use of a run directory, for the length of a ``with`` block.

    Raises:
        RunLocked: Another process holds it; the message names its pid and host.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._fd = -1

    def __enter__(self) -> Self:
        # Never truncated on opening: the content belongs to the holder until we hold the lock.
        fd = os.open(self._run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _take(fd):
            holder = _describe(os.pread(fd, 1000, 0))
            os.close(fd)
            raise RunLocked(
                f"{self._run_dir} is in use by {holder}",
                hint=f"wait for it, or watch it: runner status {self._run_dir}",
            )
        # On a full disk the holder has no name, and holds the lock all the same.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, _signature(), 0)
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _take(fd: int) -> bool:
    # More than one try, since `status` holds the lock for an instant when it looks who has it.
    for wait_s in (0.0, 0.02, 0.1):
        time.sleep(wait_s)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def holder_of(run_dir: Path) -> str | None:
    """Name the process that works in a run directory, or None where there is none."""
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


def _signature() -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode()


def _describe(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on host {holder['host']} (since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
