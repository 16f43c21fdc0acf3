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

from msgspec import Struct

from runner.core.problem import Finding, Severity
from runner.manifest.document import ProblemHandler
from runner.manifest.unchecked_job import UncheckedJob

_BUCKETS = 256
_BUCKET_MASK = _BUCKETS - 1
_MAX_IN_MEMORY = 1 << 15
_MAX_REPEATED = 10_000
"""Of equal numbers, each kind: more than anybody reads, and the rest is the same mistake again."""


def _temporary_file() -> BinaryIO:
    # Most manifests never need one.
    import tempfile

    return tempfile.TemporaryFile(buffering=0)


class HashBuckets:
    """
    Numbers for texts, eight bytes each, in buckets so that only few are compared at a time.

    >>> hashes = HashBuckets()
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
            if len(found) >= _MAX_REPEATED:
                break
            bucket = self._read_bucket(place)
            if len(set(bucket)) < len(bucket):
                found.update(number for number, count in Counter(bucket).items() if count > 1)
        return frozenset(found)

    def _read_bucket(self, place: int) -> array[int]:
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


class DuplicateDetector:
    """Takes in the jobs of a manifest as they go by, within a ``with`` block."""

    def __init__(self) -> None:
        self.ids = HashBuckets()
        self.digests = HashBuckets()
        self._append_id = self.ids.append
        self._append_digest = self.digests.append
        self._left_until_spill = _MAX_IN_MEMORY

    def add(self, _draft: UncheckedJob, job_id: str, digest: str | None) -> None:
        """Take a job in; without a digest its request is not compared."""
        number = hash(job_id)
        self._append_id[number & _BUCKET_MASK](number)
        if digest is not None:
            number = hash(digest)
            self._append_digest[number & _BUCKET_MASK](number)
        self._left_until_spill -= 1
        if not self._left_until_spill:
            self._spill()

    def _spill(self) -> None:
        self._left_until_spill = _MAX_IN_MEMORY
        self.ids.spill()
        self.digests.spill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ids.close()
        self.digests.close()


class _First(Struct, frozen=True):
    """The job that had an id or a request first."""

    draft: UncheckedJob
    job_id: str


class DuplicateReporter:
    """
    Takes in the jobs of a manifest a second time, and reports those that are there twice.

    Attributes:
        errors: Jobs with an id that is taken, and jobs without ids that ask for the same.
    """

    def __init__(self, ids: frozenset[int], digests: frozenset[int], report: ProblemHandler) -> None:
        self.errors = 0
        self._ids = ids
        self._digests = digests
        self._report = report
        self._by_id: dict[str, _First] = {}
        self._by_digest: dict[str, _First] = {}

    def compare(self, draft: UncheckedJob, job_id: str, digest: str | None) -> None:
        """Compare a job with those before it."""
        if hash(job_id) in self._ids and self._is_taken(draft, job_id):
            return
        if digest is None or hash(digest) not in self._digests:
            return
        first = self._by_digest.setdefault(digest, _First(draft, job_id))
        if first.draft is not draft:
            self._report_duplicate(draft, job_id, _same_request(first, draft))

    def _is_taken(self, draft: UncheckedJob, job_id: str) -> bool:
        first = self._by_id.setdefault(job_id, _First(draft, job_id))
        if first.draft is draft:
            return False
        self.errors += 1
        self._report_duplicate(draft, job_id, _same_id(first, draft))
        return True

    def _report_duplicate(self, draft: UncheckedJob, job_id: str, finding: Finding) -> None:
        origin = draft.source
        shown_id = job_id if draft.job_id is not None else None
        if draft.line:
            origin.report_row(draft.line, finding, self._report, shown_id)
        else:
            origin.report_once(finding, self._report, origin.label(0, shown_id))


def _same_id(first: _First, draft: UncheckedJob) -> Finding:
    if draft.job_id is None and first.draft.job_id is None:
        where = "several jobs of this entry ask" if _share_a_place(first.draft, draft) else _at(first, "asks")
        return Finding((), f"{where} for the same, and none has an id", "repeat makes a job more than once")
    if _share_a_place(first.draft, draft):
        names = ", ".join(f"${{{name}}}" for name in draft.source.variable_names)
        message = f"several jobs of this entry have the id {first.job_id!r}"
        return Finding(("id",), message, f"tell them apart by {names}")
    return Finding(("id",), _at(first, f"has the id {first.job_id!r} too"), "each job needs an id of its own")


def _same_request(first: _First, draft: UncheckedJob) -> Finding:
    where = "of this entry too" if _share_a_place(first.draft, draft) else f"at {first.draft.position()}"
    message = f"the request is the same as that of {first.job_id!r} {where}, and both are paid for"
    return Finding((), message, "use repeat if that is meant", Severity.WARNING)


def _at(first: _First, does: str) -> str:
    return f"the job at {first.draft.position()} {does}"


def _share_a_place(first: UncheckedJob, second: UncheckedJob) -> bool:
    return first.source is second.source and not second.line
