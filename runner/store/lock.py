"""
Only one process at a time uses a run directory.

An advisory lock on ``.lock``, which the kernel releases when the process ends, however it ends. The file
names its holder, for the message that others get. After a crash its content is outdated and harmless,
because only the lock itself counts. Since people delete such files, ``run.db`` is locked as well.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.core.filenames import DB_NAME, LOCK_NAME
from runner.disk import is_own, open_own
from runner.errors import RunDirError, RunLocked, StoreOutdated

_SET_OWN_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
"""Linux: a lock that belongs to the open file, so that SQLite, which closes its own, does not release it."""
_LOCKED_BYTE = 1 << 40
"""A byte of ``run.db`` that SQLite does not lock, and that is far behind its end."""

_ENDED_STATES = ("Z", "X")
"""Of a process that has ended, and whose parent has not noticed yet."""


class RunLock:
    """
    Exclusive use of a run directory, during a ``with`` block.

    Raises:
        RunLocked: Another process has the lock; the message names its pid and host.
        StoreOutdated: The directory is a copy of one that is in use.
        RunDirError: ``.lock`` is a link, and may lead anywhere.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._fd = -1
        self._db_fd = -1
        self._is_db_locked = False

    def __enter__(self) -> Self:
        # Not truncated when it is opened: until we have the lock, the content is the holder's.
        fd = _open_own(self._run_dir / LOCK_NAME)
        try:
            self._acquire(fd)
            self._refuse_copy(_parse(os.pread(fd, 1000, 0)))
        except BaseException:
            os.close(fd)
            raise
        # On a full disk the file can't name the holder, but the lock works all the same.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, _holder_json(), 0)
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A copy of the directory is not one of a directory in use any more.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        for fd in (self._db_fd, self._fd):
            if fd >= 0:
                os.close(fd)
        self._db_fd = self._fd = -1

    def lock_database(self) -> None:
        """
        Lock ``run.db`` too, and create it if it does not exist; before SQLite opens it.

        Raises:
            RunLocked: Another process has it, although ``.lock`` was free: somebody deleted that.
            RunDirError: It is a link, and may lead anywhere.
        """
        self._db_fd = _open_own(self._run_dir / DB_NAME)
        if _SET_OWN_LOCK is None:
            return
        # struct flock: type, whence, start, length, pid.
        request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
        try:
            fcntl.fcntl(self._db_fd, _SET_OWN_LOCK, request)
            self._is_db_locked = True
        except OSError as error:
            # Some file systems have no such locks.
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise self._locked(f"another process, whose {LOCK_NAME} was deleted") from None

    def require_in_place(self) -> None:
        """
        Check that the directory at the path is still the one that was locked.

        Raises:
            RunDirError: It was moved or replaced, or ``.lock`` was deleted where that lets others in.
        """
        files = {DB_NAME: self._db_fd} if self._is_db_locked else {DB_NAME: self._db_fd, LOCK_NAME: self._fd}
        for name, fd in files.items():
            if not _is_at(self._run_dir / name, fd):
                raise RunDirError(
                    f"{self._run_dir / name} was moved, replaced or deleted while the run used it",
                    hint="continue with the directory at its new place: runner resume DIR",
                )

    def _acquire(self, fd: int) -> None:
        # More than one try, because `status` has the lock for a moment when it checks who has it.
        for wait_s in (0.0, 0.02, 0.1):
            time.sleep(wait_s)
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(self._run_dir / LOCK_NAME, fd):
                    return
                # Its holder deleted what it had created there.
                break
        raise self._locked(_describe(os.pread(fd, 1000, 0)))

    def _locked(self, holder: str) -> RunLocked:
        return RunLocked(
            f"{self._run_dir} is in use by {holder}",
            hint=f"wait for it, or watch it: runner status {self._run_dir}",
        )

    def _refuse_copy(self, holder: dict[str, Any]) -> None:
        """Refuse a directory whose lock is free but names a process that is running: it was copied from that one's."""
        pid, start = holder.get("pid"), holder.get("start")
        if start is None or holder.get("host") != socket.gethostname():
            return
        # A process that is being killed releases its lock a moment before it is gone.
        for wait_s in (0.0, 0.1, 0.5):
            time.sleep(wait_s)
            if _start_of(pid) != start:
                return
        raise StoreOutdated(
            f"{self._run_dir} is a copy of a run directory that pid {pid} works in: both would pay for the same jobs",
            hint=f"use the original; or end pid {pid}, and copy the directory again",
        )


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _open_own(path: Path) -> int:
    try:
        return open_own(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        raise RunLocked(
            f"{path.parent} has just been deleted by another process", hint="run the same command again"
        ) from None
    except OSError as error:
        raise RunDirError(
            f"{path} can't be used: {error.strerror or error}",
            hint="look where it leads and what it is; delete a foreign file, or choose another directory with -o",
        ) from None


def holder_of(run_dir: Path) -> str | None:
    """Return which process uses a run directory, as text, or None."""
    try:
        fd = os.open(run_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if is_own(os.fstat(fd)):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _describe(os.pread(fd, 1000, 0))
    finally:
        os.close(fd)
    return None


def _holder_json() -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    pid = os.getpid()
    holder = {"pid": pid, "host": socket.gethostname(), "since": now, "start": _start_of(pid)}
    return json.dumps(holder).encode()


def _start_of(pid: object) -> str | None:
    """Return what tells a running process from a later one with its pid; None if there is none, or no such system."""
    if not isinstance(pid, int):
        return None
    try:
        # The name, in parentheses, may hold anything; behind it come the state and, 19 fields later, the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in _ENDED_STATES else f"{boot} {fields[19]}"
    except (OSError, IndexError, ValueError):
        return None


def _parse(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(text: bytes) -> str:
    holder = _parse(text)
    try:
        return f"pid {holder['pid']} on host {holder['host']} (since {holder['since']})"
    except KeyError:
        return "another process"
