"""The file that an asset is written to until it is complete. Everything here blocks: large bodies call it from a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING
from zlib import compress

from msgspec import Struct, field

from runner.core.filenames import ASSETS_NAME, PART_SUFFIX
from runner.disk import asset_error, is_own, open_own, replace_foreign

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_READ_BYTES = 1 << 20
_DISTINCTIVE_BYTES = 4 << 10
_BINARY = getattr(os, "O_BINARY", 0)
"""Without it Windows writes a line feed as two characters."""


class OverlapMismatch(Exception):
    """What the server sends now is not the file that the part on disk belongs to."""


class PartFile(Struct):
    """
    A part file with the running digest of its bytes.

    It only ever grows at its end, so whatever an earlier process left is the
    beginning of the file: a file system that loses power keeps a shorter file,
    not one with holes, and the overlap that every resumed download compares
    would show holes at the end.

    Attributes:
        size: How many bytes of the asset it has. A file without stored metadata counts as empty.
    """

    path: str
    size: int = 0
    _digest: Hash | None = None
    _overlap: bytes = b""
    _descriptor: int | None = None
    # A canceled download closes the file while a thread may still be writing to it.
    _lock: Lock = field(default_factory=Lock)

    def start(self, offset: int) -> None:
        """
        Prepare for a body that starts at an offset; what it repeats of the file is compared, not written.

        An offset of 0 discards what is there. For any other the digest of what is there must be known.

        Raises:
            DiskFull: There is no space.
            RunDirError: The file can't be written.
        FileUnwritable: Only this file can't be written.
        """
        with self._lock:
            try:
                self._open()
                if not offset:
                    self._reset()
                elif self._descriptor is not None:
                    os.lseek(self._descriptor, offset, os.SEEK_SET)
                    self._overlap = os.read(self._descriptor, self.size - offset)
            except OSError as error:
                raise asset_error(error, self.path) from error

    def append(self, batch: Sequence[bytes]) -> None:
        """
        Write the next bytes of the body.

        Raises:
            OverlapMismatch: They repeat what is on disk, and differ. The file is unchanged.
            DiskFull: There is no space.
            RunDirError: The file can't be written.
        FileUnwritable: Only this file can't be written.
        """
        with self._lock:
            for chunk in batch:
                new = self._compare_overlap(chunk) if self._overlap else memoryview(chunk)
                try:
                    self._write(new)
                except OSError as error:
                    raise asset_error(error, self.path) from error

    @property
    def is_hashed(self) -> bool:
        """Whether the digest of what is there is known, so that `digest` need not read the file."""
        return self._digest is not None

    @property
    def is_overlap_complete(self) -> bool:
        """Whether all that the body repeats of the file has arrived, and was the same."""
        return not self._overlap

    def digest(self) -> str:
        """Return the SHA-256 of all bytes, in hex; the file is read if an earlier process wrote it."""
        with self._lock:
            try:
                if self._digest is None:
                    self._open()
                    self._hash_file()
            except OSError as error:
                raise asset_error(error, self.path) from error
            assert self._digest is not None
            return self._digest.hexdigest()

    def has_distinctive_end(self, size: int) -> bool:
        """
        Return whether the last bytes identify the file: a run of zeros is the same in many.

        Raises:
            DiskFull, RunDirError, FileUnwritable: The file can't be read.
        """
        with self._lock:
            try:
                self._open()
                assert self._descriptor is not None
                os.lseek(self._descriptor, self.size - size, os.SEEK_SET)
                end = os.read(self._descriptor, size)
            except OSError as error:
                raise asset_error(error, self.path) from error
        return len(compress(end, 1)) >= _DISTINCTIVE_BYTES

    def close(self) -> None:
        """Close the file, after a write that may be in progress."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def discard(self) -> None:
        """Delete the file."""
        self.close()
        with suppress(OSError):
            os.unlink(self.path)

    def quarantine(self) -> str | None:
        """
        Rename a file that is not the asset, for a person to look at: the next download starts from nothing.

        Returns:
            Its new path, or None if it could not be renamed.
        """
        self.close()
        path = self.path.removesuffix(PART_SUFFIX) + ".invalid"
        try:
            os.replace(self.path, path)
        except OSError:
            return None
        return path

    def _open(self) -> None:
        if self._descriptor is None:
            self._descriptor = _open(self.path, os.O_RDWR)

    def _reset(self) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size, self._digest, self._overlap = 0, sha256(), b""

    def _hash_file(self) -> None:
        assert self._descriptor is not None
        digest = sha256()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while data := os.read(self._descriptor, _READ_BYTES):
            digest.update(data)
        self._digest = digest

    def _compare_overlap(self, chunk: bytes) -> memoryview:
        """Compare what the body repeats with what is on disk; return what is new."""
        length = min(len(chunk), len(self._overlap))
        if chunk[:length] != self._overlap[:length]:
            raise OverlapMismatch
        self._overlap = self._overlap[length:]
        return memoryview(chunk)[length:]

    def _write(self, data: memoryview) -> None:
        if self._descriptor is None or self._digest is None:
            raise ValueError(f"{self.path} is not open")
        while data:
            written = os.write(self._descriptor, data)
            self._digest.update(data[:written])
            self.size += written
            data = data[written:]


def write_file(path: str, content: bytes) -> None:
    """
    Write a small file at once.

    Raises:
        DiskFull: There is no space.
        RunDirError: The file can't be written.
        FileUnwritable: Only this file can't be written.
    """
    try:
        descriptor = _create(path)
        try:
            written = os.write(descriptor, content)
            while written < len(content):
                written += os.write(descriptor, content[written:])
        finally:
            os.close(descriptor)
    except OSError as error:
        raise asset_error(error, path) from error


def _create(path: str) -> int:
    """Open an empty file at a path. Nearly always there is none: then one call is enough, and it follows no link."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except (FileExistsError, FileNotFoundError):
        descriptor = _open(path, os.O_WRONLY)
        os.ftruncate(descriptor, 0)
        return descriptor


def _open(path: str, flags: int) -> int:
    flags |= os.O_CREAT | _BINARY
    # A link would lead to a file that is not the run's; what it leads to is left.
    replace_foreign(path)
    try:
        return open_own(path, flags)
    except FileNotFoundError:
        # The folder is made when it is missing, which is once for many files.
        _make_folder(os.path.dirname(path))
        return open_own(path, flags)


def _make_folder(folder: str) -> None:
    """Make a folder for assets, but never the run directory: a run whose directory was moved must not begin another."""
    above = os.path.dirname(folder)
    if os.path.basename(folder) != ASSETS_NAME and not os.path.isdir(above):
        with suppress(FileExistsError):
            os.mkdir(above)
    with suppress(FileExistsError):
        os.mkdir(folder)


def file_size(path: str) -> int:
    """Return a part file's size in bytes; 0 if there is none, or it is a link or no regular file."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if is_own(status) else 0
