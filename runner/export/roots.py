"""Where the videos of a dataset come from: the folder of a run, or a bucket that holds one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

from runner.core.filenames import ASSETS_NAME
from runner.core.model import Asset, Verdicts
from runner.disk import open_regular
from runner.errors import UsageError
from runner.objects import Objects
from runner.objects.base import ObjectMissing, ObjectStore

_BLOCK_BYTES = 1 << 20


class Root(Protocol):
    """
    A folder or bucket, with the verdicts on its videos. Paths are what `place` returns.

    Each method raises `OSError` (`FileNotFoundError` if the video is missing), `ValueError` if the path can't be a name
    there, or `ObjectStoreError`.
    """

    verdicts: Verdicts

    def place(self, video: Asset) -> str:
        """Return the path of a video, or its URL if it is only in an object store."""

    def size(self, path: str) -> int:
        """Return the length of a video in bytes, without reading it."""

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a video."""

    def link(self, path: str, target: Path) -> None:
        """Make a hard link to a video."""


class Folder:
    """The folder of a run, and the object stores that it uploaded to."""

    def __init__(self, folder: Path, verdicts: Verdicts, objects: Objects) -> None:
        self.verdicts = verdicts
        self._folder = folder
        self._uploads = _Uploads(objects)

    def place(self, video: Asset) -> str:
        """Return the path of a file, or a URL."""
        if video.url is None:
            return video.path
        with suppress(OSError, ValueError):
            if os.stat(self._folder / video.path).st_size == video.bytes:
                return video.path
        return video.url

    def size(self, path: str) -> int:
        """Return the length of a file or object."""
        return self._uploads.size(path) if _is_url(path) else os.stat(self._folder / path).st_size

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file or object."""
        if _is_url(path):
            yield from self._uploads.blocks(path)
            return
        with open_regular(self._folder / path) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block

    def link(self, path: str, target: Path) -> None:
        """Make a hard link to a file; what is only in an object store is refused."""
        if _is_url(path):
            raise OSError(None, "it is in an object store")
        # A link to a symbolic link would lead elsewhere from another folder.
        os.link(os.path.realpath(self._folder / path), target)


class Bucket:
    """A bucket, or a folder in it, that has what a run directory has."""

    def __init__(self, store: ObjectStore, verdicts: Verdicts, objects: Objects) -> None:
        self.verdicts = verdicts
        self._store = store
        self._uploads = _Uploads(objects)

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        return {found.name: found.size for found in self._store.list(ASSETS_NAME)}

    def place(self, video: Asset) -> str:
        """Return the path of an object below the bucket, or a URL."""
        return video.path if video.url is None or video.path in self._sizes else video.url

    def size(self, path: str) -> int:
        """Return the length of an object, by one list of all of them."""
        if _is_url(path):
            return self._uploads.size(path)
        size = self._sizes.get(path)
        if size is None:
            raise FileNotFoundError(path)
        return size

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        yield from self._uploads.blocks(path) if _is_url(path) else _read(self._store, path)

    def link(self, path: str, target: Path) -> None:
        """Refuse."""
        raise OSError(None, "it is in a bucket")


class _Uploads:
    """What runs uploaded, by URLs."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._sizes: dict[tuple[str, str], Mapping[str, int]] = {}

    def size(self, url: str) -> int:
        """Return the length of an object, by one list of each folder."""
        store, name = self._at(url)
        folder = name.rpartition("/")[0]
        if (store.url, folder) not in self._sizes:
            self._sizes[store.url, folder] = {found.name: found.size for found in store.list(folder)}
        try:
            return self._sizes[store.url, folder][name]
        except KeyError:
            raise FileNotFoundError(url) from None

    def blocks(self, url: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        yield from _read(*self._at(url))

    def _at(self, url: str) -> tuple[ObjectStore, str]:
        try:
            return self._objects.at(url)
        except UsageError as error:
            raise ValueError(error.message) from None


def _read(store: ObjectStore, name: str) -> Iterator[bytes]:
    try:
        yield from store.read(name)
    except ObjectMissing:
        raise FileNotFoundError(name) from None


def _is_url(path: str) -> bool:
    # No path of results has a colon.
    return "://" in path
