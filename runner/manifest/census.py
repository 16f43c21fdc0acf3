"""
Whether jobs are there twice, found without holding any job.

Of every job two numbers of 64 bits are kept: of its id and of its request. Equal
numbers are looked for only at the end; where there are any, `duplicates` reads the
jobs a second time. The numbers of more than `_MOST_IN_MEMORY` jobs wait for the end in
a temporary file, so that memory does not follow the manifest.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from runner.manifest.draft import Draft

_BUCKETS = 256
_BUCKET_MASK = _BUCKETS - 1
_MOST_IN_MEMORY = 1 << 15
_MOST_LOOKED_INTO = 10_000
"""Of equal numbers, each kind: more than anybody reads, and the rest is the same mistake again."""


def _temporary_file() -> BinaryIO:
    # Most manifests never need one.
    import tempfile

    return tempfile.TemporaryFile(buffering=0)


class Hashes:
    """
    Numbers for texts, eight bytes each, in buckets so that only few are compared at a time.

    >>> hashes = Hashes()
    >>> for text in ("a", "b", "a"):
    ...     hashes.add(text)
    >>> hashes.repeated() == {hash("a")}
    True
    """

    def __init__(self, make_file: Callable[[], BinaryIO] = _temporary_file) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self.append = tuple(bucket.append for bucket in self._buckets)
        """For each bucket what takes a number in; for callers that have no time for `add`."""
        self._make_file = make_file
        self._file: BinaryIO | None = None
        # Where in the file each bucket of each `spill` ends; it begins where the one before it ends.
        self._ends = array("q")

    def add(self, text: str) -> None:
        """Take a text in."""
        number = hash(text)
        self.append[number & _BUCKET_MASK](number)

    def spill(self) -> None:
        """Move what is in memory to the file; where there is no room for that, it stays."""
        content = b"".join(self._buckets)
        end = self._ends[-1] if self._ends else 0
        try:
            if self._file is None:
                self._file = self._make_file()
            if os.pwrite(self._file.fileno(), content, end) < len(content):
                return
        except OSError:
            return
        for bucket in self._buckets:
            end += len(bucket) * bucket.itemsize
            self._ends.append(end)
            del bucket[:]

    def repeated(self) -> frozenset[int]:
        """List the numbers that came more than once, up to a bound."""
        found: set[int] = set()
        for place in range(_BUCKETS):
            if len(found) >= _MOST_LOOKED_INTO:
                break
            bucket = self._whole(place)
            if len(set(bucket)) < len(bucket):
                found.update(number for number, count in Counter(bucket).items() if count > 1)
        return frozenset(found)

    def _whole(self, place: int) -> array[int]:
        """Put together what there is of a bucket in memory and in the file."""
        whole, ends = self._buckets[place][:], self._ends
        for piece in range(place, len(ends), _BUCKETS):
            assert self._file is not None
            start = ends[piece - 1] if piece else 0
            whole.frombytes(os.pread(self._file.fileno(), ends[piece] - start, start))
        return whole

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class Census:
    """Takes in the jobs of a manifest as they go by, within a ``with`` block."""

    def __init__(self) -> None:
        self.ids = Hashes()
        self.digests = Hashes()
        self._append_id = self.ids.append
        self._append_digest = self.digests.append
        self._room = _MOST_IN_MEMORY

    def note(self, _draft: Draft, job_id: str, digest: str | None) -> None:
        """Take a job in; without a digest its request is not compared."""
        number = hash(job_id)
        self._append_id[number & _BUCKET_MASK](number)
        if digest is not None:
            number = hash(digest)
            self._append_digest[number & _BUCKET_MASK](number)
        self._room -= 1
        if not self._room:
            self._spill()

    def _spill(self) -> None:
        self._room = _MOST_IN_MEMORY
        self.ids.spill()
        self.digests.spill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ids.close()
        self.digests.close()
