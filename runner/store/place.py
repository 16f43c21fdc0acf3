"""
Where a run directory is, so that a copy and its original do not both pay for the same jobs.

Two directories of one run can't be told apart by what is in them. So ``run.db`` remembers its path, its file, and its
machine; a directory that finds itself elsewhere looks at the old path. If the run is still there, each of the two looks
into the other before it submits: the one that continues first is the run, and from then on the other one is refused. Whatever
the old path can't show, such as another machine, is only warned about. A run with a journal needs none of this: the
journal has one owner at a time.
"""

from __future__ import annotations

import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runner.core.filenames import DB_NAME, LOCK_NAME
from runner.disk import is_own
from runner.errors import RunDirError, RunLocked
from runner.store import query
from runner.store.database import connect_reader
from runner.store.lock import RunLock

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


def note_place(connection: sqlite3.Connection, run_dir: Path) -> Place | None:
    """
    Save where a run directory is; or, if it is a copy whose original is still there, that one.

    The caller has the directory's lock.

    Returns:
        Where the run was before, if its original may still be there, and can't be seen from here.
    """
    known = _read(connection)
    own = _own_place(uuid.uuid4().hex if known is None else known.run_id, run_dir)
    if own == known and not is_copy(connection):
        return None
    if known is not None and _is_original(Path(known.path), run_dir, known.run_id):
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_ORIGINAL, known.path))
        return None
    connection.execute("DELETE FROM meta WHERE key = ?", (_ORIGINAL,))
    _save_place(connection, own)
    return None if known is None or known.inode == own.inode else known


def require_only(connection: sqlite3.Connection, run_dir: Path) -> None:
    """
    Check that no other directory of the run has paid for what this one does not know of; before anything is submitted.

    The other one learns that this one continues.

    Raises:
        RunDirError: It has, or is in use.
    """
    here = _read(connection)
    if here is None:
        return
    others = [*_named_original(connection), *_named_copy(connection, run_dir)]
    with ExitStack() as stack:
        locked: list[Path] = []
        for other in others:
            if not _is_original(other, run_dir, here.run_id):
                continue
            with closing(connect_reader(other)) as reader:
                # Another copy of the same original.
                others += (each for each in _named_copy(reader, other) if each not in others)
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
                    hint=f"continue there: runner resume {other}; or delete that one first, and what it paid for",
                )
        for other in locked:
            _note_copy(other, run_dir)
    connection.execute("DELETE FROM meta WHERE key = ?", (_ORIGINAL,))
    _save_place(connection, _own_place(here.run_id, run_dir))


def _named_original(connection: sqlite3.Connection) -> Iterator[Path]:
    if (original := query.meta(connection, _ORIGINAL)) is not None:
        yield Path(original)


def _named_copy(connection: sqlite3.Connection, run_dir: Path) -> Iterator[Path]:
    with suppress(msgspec.DecodeError):
        copy = msgspec.json.decode(query.meta(connection, _COPY) or "null", type=Place | None)
        # A copy of this directory has this too, and it is not about that copy.
        if copy is not None and copy.inode == (run_dir / DB_NAME).stat().st_ino:
            yield Path(copy.path)


def _note_copy(original: Path, copy: Path) -> None:
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(original / DB_NAME, isolation_level=None)) as connection,
    ):
        known = _read(connection)
        if known is None:
            return
        place = replace(known, path=str(copy.resolve()), inode=(original / DB_NAME).stat().st_ino)
        _save_place(connection, place, _COPY)


def _has_more_attempts(other: Path, connection: sqlite3.Connection) -> bool:
    """Return whether another directory, or the one that it was merged into, may have an attempt that this one lacks."""
    attempts = "SELECT seq, number FROM attempts ORDER BY seq, number"
    own = connection.execute(attempts)
    with closing(connect_reader(other)) as reader:
        if query.meta(reader, RETIRED) is not None:
            return True
        for attempt in reader.execute(attempts):
            if attempt not in own:
                return True
    return False


def is_copy(connection: sqlite3.Connection) -> bool:
    """Return whether a run directory is a copy of one that is still there."""
    return query.meta(connection, _ORIGINAL) is not None


def _own_place(run_id: str, run_dir: Path) -> Place:
    return Place(run_id, str(run_dir.resolve()), socket.gethostname(), (run_dir / DB_NAME).stat().st_ino)


def _save_place(connection: sqlite3.Connection, place: Place, key: str = _PLACE) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, msgspec.json.encode(place).decode())
    )


def _read(connection: sqlite3.Connection) -> Place | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(query.meta(connection, _PLACE) or "null", type=Place | None)
    return None


def _is_original(path: Path, run_dir: Path, run_id: str) -> bool:
    """Return whether the same run is at a path, in other files."""
    with suppress(OSError, RunDirError):
        # Somebody else's directory names any path: nothing there may block.
        if not all(is_own((path / name).lstat()) for name in (DB_NAME, LOCK_NAME)):
            return False
        # By another mount, a folder may look like another one; but the lock there names this process as well.
        if (path / DB_NAME).samefile(run_dir / DB_NAME) or _holder(path) == _holder(run_dir) != b"":
            return False
        with closing(connect_reader(path)) as reader:
            known = _read(reader)
            return known is not None and known.run_id == run_id
    return False


def _holder(run_dir: Path) -> bytes:
    with open(run_dir / LOCK_NAME, "rb") as file:
        return file.read(1000)
