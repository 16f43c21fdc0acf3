"""
Where a run directory is, so that a copy does not pay for the same jobs while its original is there too.

Two directories of one run can't be told apart by what is in them. So ``run.db`` remembers its path, its file, and its
machine; a directory that finds itself elsewhere looks at the old path. Whatever that path can't show, such as another
machine, is only warned about. A run with a journal needs none of this: the journal has one owner at a time.
"""

from __future__ import annotations

import socket
import sqlite3
import uuid
from contextlib import closing, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from runner.core.filenames import DB_NAME, LOCK_NAME
from runner.disk import is_own
from runner.errors import RunDirError
from runner.store import query
from runner.store.database import connect_reader

_PLACE, _ORIGINAL = "place", "original"
"""Keys of `meta`: a place; and the path of the directory that this one is a copy of."""
_SAVE = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


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
    own = Place(
        uuid.uuid4().hex if known is None else known.run_id,
        str(run_dir.resolve()),
        socket.gethostname(),
        (run_dir / DB_NAME).stat().st_ino,
    )
    if own == known and not is_copy(connection):
        return None
    if known is not None and _is_original(Path(known.path), run_dir, known.run_id):
        connection.execute(_SAVE, (_ORIGINAL, known.path))
        return None
    connection.execute("DELETE FROM meta WHERE key = ?", (_ORIGINAL,))
    connection.execute(_SAVE, (_PLACE, msgspec.json.encode(own).decode()))
    return None if known is None or known.inode == own.inode else known


def require_original(connection: sqlite3.Connection) -> None:
    """
    Check that a run directory is no copy of one that is still there; before anything is submitted.

    Raises:
        RunDirError: It is.
    """
    if (original := query.meta(connection, _ORIGINAL)) is not None:
        raise RunDirError(
            f"the run directory is a copy of {original}, which is still there: both would pay for the same jobs",
            hint=f"continue there: runner resume {original}; or delete that one first, if it has done nothing "
            "since it was copied",
        )


def is_copy(connection: sqlite3.Connection) -> bool:
    """Return whether a run directory is a copy of one that is still there."""
    return query.meta(connection, _ORIGINAL) is not None


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
