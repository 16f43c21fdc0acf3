"""
What every object store can do, and the store of a folder, also on NFS: no locks, only new files and new names.

An object in a folder gets its name when its bytes are on the disk, and `create` gives the name by a hard link, which
fails if the name is taken. A method returns when the name is on the disk too.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

from runner.disk import FREE_SPACE_HINT, is_disk_full, sync_folder
from runner.errors import ObjectStoreError, UsageError


class ObjectExists(Exception):
    """
    An object of this name may be there already, so nothing was created.

    Only reading it tells: the request may have been repeated after its answer was lost, so that the object is one's
    own, and S3 answers a conflict of two creations in the same way, after which there may be no object at all.
    """


class ObjectMissing(Exception):
    """There is no object of this name."""


class ObjectInfo(NamedTuple):
    """
    An object's name and length.

    Attributes:
        name: Its path below the store's URL, without a leading slash.
        size: In bytes.
        sha256: What `put` was given as its ``sha256``; None if the store does not keep it, or in a list.
    """

    name: str
    size: int
    sha256: str | None = None


class ObjectStore(Protocol):
    """
    Objects below one URL. Every method blocks, and may be called from any thread.

    A name is one or more segments joined by ``/``; none is empty, ``.`` or ``..``, or begins with ``.``. A method that
    returned has reached durable storage. Each raises `ObjectStoreError` when the store can't be reached, refuses the
    credentials or has no such bucket: whether anything was written is then unknown.
    """

    @property
    def url(self) -> str:
        """The store's URL without a slash at its end; it holds no secret."""

    def create(self, name: str, data: bytes) -> None:
        """
        Create an object; of several callers, at once or later, one succeeds.

        Raises:
            ObjectExists: Nothing was created. See there for what else it may mean.
        """

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """
        Write an object, whole or not at all, in place of one of that name.

        Args:
            name: Its name.
            source: Its bytes, or the local file that has them.
            content_type: Its media type. A folder does not keep it.
            metadata: More facts to keep with it, with keys of lower-case letters. A folder does not keep them.

        Raises:
            OSError: The local file can't be read.
        """

    def get(self, name: str) -> bytes:
        """
        Return an object's bytes.

        Raises:
            ObjectMissing: It does not exist.
        """

    def read(self, name: str) -> Iterator[bytes]:
        """
        Yield an object's bytes in parts, so that it need not fit into memory.

        Raises:
            ObjectMissing: It does not exist.
        """

    def head(self, name: str) -> ObjectInfo:
        """
        Return an object's length, and its digest where that is kept.

        Raises:
            ObjectMissing: It does not exist.
        """

    def list(self, folder: str = "", *, after: str | None = None) -> list[ObjectInfo]:
        """
        List the objects below a folder, at any depth, by name.

        Args:
            folder: Segments joined by ``/``; ``""`` is the whole store.
            after: Only names that are greater than this one.
        """

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""

    def presign(self, name: str, expires_s: float) -> str:
        """
        Return a URL from which anybody can read an object for a time. It is a secret, so it is never to be logged.

        Args:
            name: Its name. It need not exist yet.
            expires_s: For how many seconds; S3 allows at most 7 days.

        Raises:
            UsageError: Such URLs do not exist for this store.
        """


_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class FolderStore:
    """The store of a folder, which is created when the first object is."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.abspath(folder)
        self._durable_folders: set[str] = set()

    @property
    def url(self) -> str:
        """The folder as a URL."""
        return Path(self._folder).as_uri()

    def create(self, name: str, data: bytes) -> None:
        """Create an object, if there is none of that name."""
        path = self._path(name)
        with self._errors(path, is_write=True), self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise ObjectExists(name) from None
            except OSError as error:
                if error.errno in _NO_HARD_LINKS:
                    raise ObjectStoreError(
                        f"{self.url} is on a file system without hard links, so nothing can be created there safely",
                        hint="use another file system, or an object store",
                    ) from None
                raise
        self._sync(path)

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object in place of one of that name."""
        path = self._path(name)
        if isinstance(source, Path):
            source.open("rb").close()
        with self._errors(path, is_write=True), self._temporary(path, source) as temporary:
            os.replace(temporary, path)
        self._sync(path)

    def get(self, name: str) -> bytes:
        """Return an object's bytes."""
        path = self._path(name)
        with self._errors(path), open(path, "rb") as file:
            return file.read()

    def read(self, name: str) -> Iterator[bytes]:
        """Yield an object's bytes in parts."""
        path = self._path(name)
        with self._errors(path), open(path, "rb") as file:
            while part := file.read(1 << 20):
                yield part

    def head(self, name: str) -> ObjectInfo:
        """Return an object's length."""
        path = self._path(name)
        with self._errors(path):
            return ObjectInfo(name, os.stat(path).st_size)

    def list(self, folder: str = "", *, after: str | None = None) -> list[ObjectInfo]:
        """List the objects below a folder, by name."""
        top = self._path(folder) if folder else self._folder
        found: list[ObjectInfo] = []
        with self._errors(top):
            for path, _, files in os.walk(top, onerror=_raise_unless_missing):
                for file in files:
                    full = os.path.join(path, file)
                    name = os.path.relpath(full, self._folder).replace(os.sep, "/")
                    if file.startswith(".") or (after is not None and name <= after):
                        continue
                    with suppress(FileNotFoundError):
                        found.append(ObjectInfo(name, os.stat(full).st_size))
        return sorted(found)

    def delete(self, name: str) -> None:
        """Delete an object, if it exists."""
        path = self._path(name)
        with suppress(ObjectMissing), self._errors(path):
            os.unlink(path)
            sync_folder(os.path.dirname(path))

    def presign(self, name: str, expires_s: float) -> str:
        """Refuse: a file has no such URL."""
        raise UsageError(
            f"{self.url} is a folder, and its files have no web address", hint="use an object store"
        )

    def _path(self, name: str) -> str:
        segments = name.split("/")
        if any(not segment or segment.startswith(".") or os.sep in segment for segment in segments):
            raise ValueError(f"{name!r} is not the name of an object")
        return os.path.join(self._folder, *segments)

    @contextmanager
    def _temporary(self, path: str, source: bytes | Path) -> Iterator[str]:
        """Write bytes to a new file in the folder of a path, durably, and delete it at the end if it is still there."""
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{uuid4().hex}.tmp")
        try:
            with (
                BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as data,
                open(temporary, "xb") as file,
            ):
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _sync(self, path: str) -> None:
        """Make the name of a file durable, and the names of the folders above it once."""
        folder = os.path.dirname(path)
        with self._errors(path, is_write=True):
            sync_folder(folder)
            while folder not in self._durable_folders and folder != os.path.dirname(folder):
                self._durable_folders.add(folder)
                folder = os.path.dirname(folder)
                # A folder that belongs to another user was not made here.
                with suppress(PermissionError):
                    sync_folder(folder)

    @contextmanager
    def _errors(self, path: str, *, is_write: bool = False) -> Iterator[None]:
        """Raise what the disk raised as errors of a store. What a write does not find is its folder."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not is_write:
                raise ObjectMissing(path) from None
            hint = (
                FREE_SPACE_HINT
                if is_disk_full(error)
                else "check the folder, then run the same command again"
            )
            raise ObjectStoreError(f"{path} can't be used: {error.strerror or error}", hint=hint) from error


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
