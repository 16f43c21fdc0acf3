"""
Whether jobs are there twice, found without holding any job.

Of every job two numbers of 64 bits are kept: of its id and of its request. Equal
numbers are looked for only at the end; where there are any, `duplicates` reads the
jobs a second time.
"""

from __future__ import annotations

from array import array
from collections import Counter

from runner.manifest.draft import Draft

_BUCKETS = 256
_BUCKET_MASK = _BUCKETS - 1
_MOST_LOOKED_INTO = 10_000
"""Of equal numbers, each kind: more than anybody reads, and the rest is the same mistake again."""


class Hashes:
    """
    Numbers for texts, eight bytes each, in buckets so that only few are compared at a time.

    >>> hashes = Hashes()
    >>> for text in ("a", "b", "a"):
    ...     hashes.add(text)
    >>> hashes.repeated() == {hash("a")}
    True
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self.append = tuple(bucket.append for bucket in self._buckets)
        """For each bucket what takes a number in; for callers that have no time for `add`."""

    def add(self, text: str) -> None:
        """Take a text in."""
        number = hash(text)
        self.append[number & _BUCKET_MASK](number)

    def repeated(self) -> frozenset[int]:
        """List the numbers that came more than once, up to a bound."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(found) >= _MOST_LOOKED_INTO:
                break
            if len(set(bucket)) < len(bucket):
                found.update(number for number, count in Counter(bucket).items() if count > 1)
        return frozenset(found)


class Census:
    """Takes in the jobs of a manifest as they go by."""

    def __init__(self) -> None:
        self.ids = Hashes()
        self.digests = Hashes()
        self._append_id = self.ids.append
        self._append_digest = self.digests.append

    def note(self, _draft: Draft, job_id: str, digest: str | None) -> None:
        """Take a job in; without a digest its request is not compared."""
        number = hash(job_id)
        self._append_id[number & _BUCKET_MASK](number)
        if digest is not None:
            number = hash(digest)
            self._append_digest[number & _BUCKET_MASK](number)
