"""The file that an asset is written to until it is whole. Everything here blocks: large bodies call it from a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from runner.disk import write_error

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_PIECE_BYTES = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0)
"""Without it Windows writes a line feed as two characters."""


class OverlapMismatch(Exception):
    """What the server sends now is not the file that the part on disk comes from."""


class PartFile:
    """
    A part file with the running digest of its bytes.

    It only ever grows at its end, so whatever an earlier process left is a
    beginning of the file: a file system that loses power keeps a shorter file,
    not one with holes, and the overlap that every resumed download compares
    would show holes at the end.

    Attributes:
        size: How many bytes of the asset it has. A file that nobody remembers counts as none.
    """

    def __init__(self, path: str, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._digest: Hash | None = None
        self._expected = b""
        self._file: int | None = None
        # A cancelled download closes the file while a thread may still be writing to it.
        self._lock = Lock()

    def begin(self, offset: int) -> None:
        """
        Make ready for a body whose first byte belongs at an offset; what it repeats is compared, not written.

        An offset of 0 throws away what is there. For any other the digest of what is there must be known.

        Raises:
            DiskFull: There is no room.
            RunDirError: The file can't be written.
        """
        with self._lock:
            try:
                self._open()
                if not offset:
                    self._reset()
                elif self._file is not None:
                    os.lseek(self._file, offset, os.SEEK_SET)
                    self._expected = os.read(self._file, self.size - offset)
            except OSError as error:
                raise write_error(error, self.path) from error

    def append(self, lot: Sequence[bytes | memoryview]) -> None:
        """
        Write what came.

        Raises:
            OverlapMismatch: It repeats what is on disk, and is different. The file is untouched.
            DiskFull: There is no room.
            RunDirError: The file can't be written.
        """
        with self._lock:
            for piece in lot:
                rest = self._compare(piece) if self._expected else memoryview(piece)
                try:
                    self._write(rest)
                except OSError as error:
                    raise write_error(error, self.path) from error

    @property
    def is_hashed(self) -> bool:
        """Whether the digest of what is there is known, so that `digest` need not read the file."""
        return self._digest is not None

    @property
    def is_caught_up(self) -> bool:
        """Whether everything that the body repeats has come, and was the same."""
        return not self._expected

    def digest(self) -> str:
        """Give the sha256 of all bytes, in hex, reading them where an earlier process wrote them."""
        with self._lock:
            try:
                if self._digest is None:
                    self._open()
                    self._rehash()
            except OSError as error:
                raise write_error(error, self.path) from error
            assert self._digest is not None
            return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file, after a write that may be under way."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def discard(self) -> None:
        """Delete the file."""
        self.close()
        with suppress(OSError):
            os.unlink(self.path)

    def quarantine(self) -> None:
        """Rename a file that is not the asset, for a person to look at: the next download starts from nothing."""
        self.close()
        with suppress(OSError):
            os.replace(self.path, self.path.removesuffix(".part") + ".invalid")

    def _open(self) -> None:
        if self._file is None:
            self._file = _open(self.path, os.O_RDWR)

    def _reset(self) -> None:
        assert self._file is not None
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size, self._digest, self._expected = 0, sha256(), b""

    def _rehash(self) -> None:
        assert self._file is not None
        digest = sha256()
        os.lseek(self._file, 0, os.SEEK_SET)
        while piece := os.read(self._file, _PIECE_BYTES):
            digest.update(piece)
        self._digest = digest

    def _compare(self, piece: bytes | memoryview) -> memoryview:
        """Hold what the body repeats against what is on disk; gives back what is new."""
        same = min(len(piece), len(self._expected))
        if piece[:same] != self._expected[:same]:
            raise OverlapMismatch
        self._expected = self._expected[same:]
        return memoryview(piece)[same:]

    def _write(self, rest: memoryview) -> None:
        if self._file is None or self._digest is None:
            raise ValueError(f"{self.path} is not open")
        while rest:
            written = os.write(self._file, rest)
            self._digest.update(rest[:written])
            self.size += written
            rest = rest[written:]


def write_whole(path: str, body: bytes) -> None:
    """
    Write a small body in one go.

    Raises:
        DiskFull: There is no room.
        RunDirError: The file can't be written.
    """
    try:
        file = _open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            written = os.write(file, body)
            while written < len(body):
                written += os.write(file, body[written:])
        finally:
            os.close(file)
    except OSError as error:
        raise write_error(error, path) from error


def _open(path: str, flags: int) -> int:
    flags |= os.O_CREAT | _BINARY
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        # The folder is made when it is missed, which is once for many files.
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def size_of(path: str) -> int:
    """Tell a file's size; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
