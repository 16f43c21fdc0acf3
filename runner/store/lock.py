"""
Only one process at a time uses a run directory, and a copy and its original do not both pay for the same jobs.

An advisory lock on ``.lock``, which the kernel releases when the process ends, however it ends. The file
names its holder, for the message that others get. After a crash its content is outdated and harmless,
because only the lock itself counts. Since people delete such files, ``run.db`` is locked as well.

Two directories of one run can't be distinguished by what is in them. So ``run.db`` remembers its path, its file, and its
machine; a directory that finds itself elsewhere looks at the old path. If the run is still there, each of the two looks
into the other before it submits: the one that continues first is the run, and from then on the other one is refused. Whatever
the old path can't show, such as another machine, is only warned about. A run with a journal needs none of this: the
journal has one owner at a time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sqlite3
import struct
import time
import uuid
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runner.core.filenames import DB_NAME, LOCK_NAME
from runner.core.sanitize import command_text
from runner.disk import MOVED_HINT, is_own, open_own
from runner.errors import RunDirError, RunLocked, StoreOutdated
from runner.store import query
from runner.store.database import reading
from runner.store.query import Meta

_SET_OWN_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
"""Linux: a lock that belongs to the open file, so that SQLite, which closes its own, does not release it."""
_LOCKED_BYTE = 1 << 40
"""A byte of ``run.db`` that SQLite does not lock, and that is far behind its end."""

_ENDED_STATES = ("Z", "X")
"""Of a process that has ended, and whose parent has not noticed yet."""


class RunLock:
    """
    Exclusive use of a run directory, or of one in which something is built, during a ``with`` block.

    Args:
        hint: What to do if another process has it; None for what fits a run.

    Raises:
        RunLocked: Another process has the lock; the message names its pid and host.
        StoreOutdated: The directory is a copy of one that is in use.
        RunDirError: ``.lock`` is a link, and may lead anywhere.
    """

    def __init__(self, run_dir: Path, *, hint: str | None = None) -> None:
        self._run_dir = run_dir
        self._hint = hint
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
                    hint=MOVED_HINT,
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
        hint = self._hint or f"wait for it, or watch it: {command_text('runner', 'status', self._run_dir)}"
        return RunLocked(f"{self._run_dir} is in use by {holder}", hint=hint)

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
        hint = "check the directory's owner and permissions"
        if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
            hint = "look where it leads and what it is; delete a foreign file, or choose another directory with -o"
        raise RunDirError(f"{path} can't be used: {error.strerror or error}", hint=hint) from None


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
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
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


RETIRED = "retired"
"""Key of `meta`: the directory that took over the jobs."""
_PLACE, _ORIGINAL, _COPY = "place", "original", "copy"
"""Keys of `meta`: a place; the path of the directory that this one is a copy of; and that of a copy which continued."""


class Place(Struct, frozen=True):
    """
    Where a run was worked on.

    Attributes:
        run_id: The same in every copy.
        path: Of the run directory, without links.
        inode: Of ``run.db``. A move on the same disk keeps it, and so does another mount of the same folder.
    """

    run_id: str
    path: str
    host: str
    inode: int


def note_place(connection: sqlite3.Connection, run_dir: Path, meta: Meta) -> tuple[Place | None, bool]:
    """
    Save where a run directory is; or, if it is a copy whose original is still there, that one.

    The caller has the directory's lock.

    Returns:
        Where the run was before, if its original may still be there, and can't be seen from here; and whether another
        directory is known to be the same run.
    """
    known, has_copy = _read(meta, _PLACE), bool(_named_copy(meta, run_dir))
    own = _own_place(uuid.uuid4().hex if known is None else known.run_id, run_dir)
    if own == known and _ORIGINAL not in meta:
        return None, has_copy
    if known is not None and _is_original(Path(known.path), run_dir, known.run_id):
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_ORIGINAL, known.path))
        return None, True
    connection.execute("DELETE FROM meta WHERE key = ?", (_ORIGINAL,))
    _save_place(connection, own)
    return None if known is None or known.inode == own.inode else known, has_copy


def require_only(connection: sqlite3.Connection, run_dir: Path) -> None:
    """
    Check that no other directory of the run has paid for what this one does not know of; before anything is submitted.

    The other one learns that this one continues.

    Raises:
        RunDirError: It has, or is in use.
    """
    meta = query.meta(connection)
    here = _read(meta, _PLACE)
    if here is None:
        return
    others = [Path(meta[_ORIGINAL])] if _ORIGINAL in meta else []
    others += _named_copy(meta, run_dir)
    with ExitStack() as stack:
        locked: list[Path] = []
        for other in others:
            if not _is_original(other, run_dir, here.run_id):
                continue
            with reading(other) as reader:
                # Another copy of the same original.
                others += (each for each in _named_copy(query.meta(reader), other) if each not in others)
            is_free = True
            try:
                stack.enter_context(RunLock(other))
                locked.append(other)
            except RunLocked:
                is_free = False
            except (RunDirError, OSError):
                # It can't be written, so nobody continues there.
                pass
            if not is_free or _has_more_attempts(other, connection):
                raise RunDirError(
                    f"the same run continues in {other}: both would pay for the same jobs",
                    hint=f"continue there: {command_text('runner', 'resume', other)}; or delete that one first, and what it paid for",
                )
        for other in locked:
            _note_copy(other, run_dir)
    connection.execute("DELETE FROM meta WHERE key = ?", (_ORIGINAL,))
    _save_place(connection, _own_place(here.run_id, run_dir))


def _named_copy(meta: Meta, run_dir: Path) -> list[Path]:
    copy = _read(meta, _COPY)
    # A copy of this directory has this too, and it is not about that copy.
    if copy is None or copy.inode != (run_dir / DB_NAME).stat().st_ino:
        return []
    return [Path(copy.path)]


def _note_copy(original: Path, copy: Path) -> None:
    database = original / DB_NAME
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, isolation_level=None)) as connection:
        known = _read(query.meta(connection), _PLACE)
        if known is None:
            return
        place = replace(known, path=str(copy.resolve()), inode=database.stat().st_ino)
        _save_place(connection, place, _COPY)


def _has_more_attempts(other: Path, connection: sqlite3.Connection) -> bool:
    """Return whether another directory, or the one that it was merged into, may have an attempt that this one lacks."""
    attempts = "SELECT seq, number FROM attempts ORDER BY seq, number"
    own = connection.execute(attempts)
    with reading(other) as reader:
        if RETIRED in query.meta(reader):
            return True
        for attempt in reader.execute(attempts):
            if attempt not in own:
                return True
    return False


def is_copy(connection: sqlite3.Connection) -> bool:
    """Return whether a run directory is a copy of one that is still there."""
    return _ORIGINAL in query.meta(connection)


def _own_place(run_id: str, run_dir: Path) -> Place:
    return Place(run_id, str(run_dir.resolve()), socket.gethostname(), (run_dir / DB_NAME).stat().st_ino)


def _save_place(connection: sqlite3.Connection, place: Place, key: str = _PLACE) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, msgspec.json.encode(place).decode())
    )


def _read(meta: Meta, key: str) -> Place | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(meta.get(key, "null"), type=Place | None)
    return None


def _is_original(path: Path, run_dir: Path, run_id: str) -> bool:
    """Return whether the same run is at a path, in other files; `RunLocked` if another program hides that."""
    try:
        # Somebody else's directory names any path: nothing there may block.
        if not all(is_own((path / name).lstat()) for name in (DB_NAME, LOCK_NAME)):
            return False
        # By another mount, a folder may look like another one; but the lock there names this process as well.
        if (path / DB_NAME).samefile(run_dir / DB_NAME) or _holder(path) == _holder(run_dir) != b"":
            return False
        with reading(path) as reader:
            known = _read(query.meta(reader), _PLACE)
            return known is not None and known.run_id == run_id
    except RunLocked:
        raise
    except (OSError, RunDirError):
        return False


def _holder(run_dir: Path) -> bytes:
    with open(run_dir / LOCK_NAME, "rb") as file:
        return file.read(1000)
