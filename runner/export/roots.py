"""Where the videos of a dataset come from: the folder of a run, or a bucket that holds one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from runner.core.filenames import ASSETS_NAME
from runner.core.verdicts import Verdicts
from runner.input_files import open_regular
from runner.objects.port import ObjectMissing, ObjectStore

_BLOCK_BYTES = 1 << 20


class Root(Protocol):
    """
    A folder or bucket, with the verdicts on its videos. Paths are those of assets in results.

    Each method raises `OSError` (`FileNotFoundError` if the video is missing), `ValueError` if the path can't be a name
    there, or `ObjectStoreError`.
    """

    verdicts: Verdicts

    def size(self, path: str) -> int:
        """Return the length of a video in bytes, without reading it."""

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a video."""

    def link(self, path: str, target: Path) -> None:
        """Make a hard link to a video."""


class Folder:
    """The folder of a run."""

    def __init__(self, folder: Path, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._folder = folder

    def size(self, path: str) -> int:
        """Return the length of a file."""
        return os.stat(self._folder / path).st_size

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        with open_regular(self._folder / path) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block

    def link(self, path: str, target: Path) -> None:
        """Make a hard link to a file."""
        # A link to a symbolic link would lead elsewhere from another folder.
        os.link(os.path.realpath(self._folder / path), target)


class Bucket:
    """A bucket, or a folder in it, that has what a run directory has."""

    def __init__(self, store: ObjectStore, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._store = store

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        return dict(self._store.list(ASSETS_NAME))

    def size(self, path: str) -> int:
        """Return the length of an object, by one list of all of them."""
        size = self._sizes.get(path)
        if size is None:
            raise FileNotFoundError(path)
        return size

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        try:
            yield from self._store.read(path)
        except ObjectMissing:
            raise FileNotFoundError(path) from None

    def link(self, path: str, target: Path) -> None:
        """Refuse."""
        raise OSError(None, "it is in a bucket")
