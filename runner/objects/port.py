"""What every object store can do, whatever holds its objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol


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
