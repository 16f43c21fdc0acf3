"""
Duplicate jobs, detected without keeping the jobs in memory.

Of every job two numbers of 64 bits are kept: hashes of its id and of its request's
digest; and a third one of the task that it names, if it does. `DuplicateDetector` looks for equal numbers only at the end; if there are any,
the jobs are read a second time, and `DuplicateReporter` compares them. The numbers of
more than `_MAX_IN_MEMORY` jobs wait in a temporary file, so that memory does not grow
with the manifest.
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
from runner.core.sanitize import redact
from runner.manifest.document import ProblemHandler
from runner.manifest.unchecked_job import UncheckedJob

_BUCKETS = 256
_BUCKET_MASK = _BUCKETS - 1
_MAX_IN_MEMORY = 1 << 15
_MAX_REPEATED = 10_000
"""Equal numbers that are compared, of ids and of digests: more are the same mistake again."""


def _temporary_file() -> BinaryIO:
    # Most manifests never need one, and the import is slow.
    import tempfile

    return tempfile.TemporaryFile(buffering=0)


class HashBuckets:
    """
    Hashes of texts, eight bytes each, in buckets so that only few are compared at a time.

    >>> hashes = HashBuckets()
    >>> for text in ("a", "b", "a"):
    ...     hashes.add(text)
    >>> hashes.repeated() == {hash("a")}
    True
    """

    def __init__(self, make_file: Callable[[], BinaryIO] = _temporary_file) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._append = tuple(bucket.append for bucket in self._buckets)
        self._make_file = make_file
        self._file: BinaryIO | None = None
        # Where in the file each bucket of each `spill` ends; it begins where the one before it ends.
        self._ends = array("q")

    def add(self, text: str) -> None:
        """Add the hash of a text."""
        number = hash(text)
        self._append[number & _BUCKET_MASK](number)

    def spill(self) -> None:
        """Move what is in memory to the file; if the disk is full, it stays in memory."""
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
        """Return the hashes that were added more than once, about `_MAX_REPEATED` of them at most."""
        repeated: set[int] = set()
        for index in range(_BUCKETS):
            if len(repeated) >= _MAX_REPEATED:
                break
            if not self._ends and len(self._buckets[index]) < 2:
                continue
            bucket = self._read_bucket(index)
            if len(set(bucket)) < len(bucket):
                repeated.update(number for number, count in Counter(bucket).items() if count > 1)
        return frozenset(repeated)

    def _read_bucket(self, index: int) -> array[int]:
        """Join the parts of a bucket in memory and in the file."""
        bucket, ends = self._buckets[index][:], self._ends
        for part in range(index, len(ends), _BUCKETS):
            assert self._file is not None
            start = ends[part - 1] if part else 0
            bucket.frombytes(os.pread(self._file.fileno(), ends[part] - start, start))
        return bucket

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


Repeated = tuple[frozenset[int], frozenset[int], frozenset[int]]
"""Hashes that occur more than once: of ids, of digests, and of the tasks that jobs name."""


class DuplicateDetector:
    """Collects the hashes of a manifest's jobs, within a ``with`` block."""

    def __init__(self) -> None:
        self._ids = HashBuckets()
        self._digests = HashBuckets()
        self._task_ids = HashBuckets()
        self._all = (self._ids, self._digests, self._task_ids)
        self._left_until_spill = _MAX_IN_MEMORY

    def add(self, job: UncheckedJob, job_id: str, digest: str | None) -> None:
        """Add a job; without a digest its request is not compared."""
        self._ids.add(job_id)
        if digest is not None:
            self._digests.add(digest)
        if isinstance(job.task_id, str):
            self._task_ids.add(job.task_id)
        self._left_until_spill -= 1
        if not self._left_until_spill:
            self._left_until_spill = _MAX_IN_MEMORY
            for hashes in self._all:
                hashes.spill()

    def add_id(self, job_id: str) -> None:
        """Add the id of a job that can't be read."""
        self._ids.add(job_id)

    def repeated(self) -> Repeated:
        """Return what occurs more than once among the jobs that were added."""
        return self._ids.repeated(), self._digests.repeated(), self._task_ids.repeated()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hashes in self._all:
            hashes.close()


class _First(Struct, frozen=True):
    """The first job with an id or a request."""

    job: UncheckedJob
    job_id: str


class DuplicateReporter(Struct):
    """
    Compares the jobs of a manifest, read a second time, and reports duplicates.

    Attributes:
        ids, digests, task_ids: What occurs more than once; see `Repeated`.
        errors: Jobs with the id or the task of an earlier one, and jobs without ids with the request of an
            earlier one.
    """

    ids: frozenset[int]
    digests: frozenset[int]
    task_ids: frozenset[int]
    report: ProblemHandler
    errors: int = 0
    _by_id: dict[str, _First] = {}
    _by_digest: dict[str, _First] = {}
    _by_task: dict[str, _First] = {}

    def compare(self, job: UncheckedJob, job_id: str, digest: str | None) -> None:
        """Compare a job with those before it."""
        if hash(job_id) in self.ids and self._has_earlier_id(job, job_id):
            return
        if isinstance(job.task_id, str) and hash(job.task_id) in self.task_ids:
            first = self._by_task.setdefault(job.task_id, _First(job, job_id))
            if first.job is not job:
                self.errors += 1
                self._report_duplicate(job, job_id, _same_task(first, job))
                return
        if digest is None or hash(digest) not in self.digests:
            return
        first = self._by_digest.setdefault(digest, _First(job, job_id))
        if first.job is not job:
            self._report_duplicate(job, job_id, _same_request(first, job))

    def _has_earlier_id(self, job: UncheckedJob, job_id: str) -> bool:
        first = self._by_id.setdefault(job_id, _First(job, job_id))
        if first.job is job:
            return False
        self.errors += 1
        self._report_duplicate(job, job_id, _same_id(first, job))
        return True

    def _report_duplicate(self, job: UncheckedJob, job_id: str, finding: Finding) -> None:
        source = job.source
        shown_id = job_id if job.job_id is not None else None
        if job.line:
            source.report_row(job.line, finding, self.report, shown_id)
        else:
            source.report_once(finding, self.report, source.label(0, shown_id))


def _same_id(first: _First, job: UncheckedJob) -> Finding:
    is_same_entry = _are_of_one_entry(first.job, job)
    if job.job_id is None and first.job.job_id is None:
        subject = "several jobs of this entry have" if is_same_entry else _at(first, "has")
        return Finding((), f"{subject} the same request and no id", "repeat makes a job more than once")
    if is_same_entry:
        names = ", ".join(f"${{{name}}}" for name in job.source.variable_names)
        message = f"several jobs of this entry have the id {first.job_id!r}"
        return Finding(("id",), message, f"make it differ by {names}")
    return Finding(("id",), _at(first, f"has the id {first.job_id!r} too"), "each job needs an id of its own")


def _same_request(first: _First, job: UncheckedJob) -> Finding:
    where = "of this entry" if _are_of_one_entry(first.job, job) else f"at {first.job.position()}"
    message = f"the request is the same as that of {first.job_id!r} {where}, and both are billed"
    return Finding((), message, "use repeat if this is intended", Severity.WARNING)


def _same_task(first: _First, job: UncheckedJob) -> Finding:
    where = "of this entry" if _are_of_one_entry(first.job, job) else f"at {first.job.position()}"
    return Finding(
        ("task_id",),
        f"the task {redact(str(job.task_id))!r} is named by {first.job_id!r} {where} too",
        "a task makes one video, of one job",
    )


def _at(first: _First, predicate: str) -> str:
    return f"the job at {first.job.position()} {predicate}"


def _are_of_one_entry(first: UncheckedJob, second: UncheckedJob) -> bool:
    return first.source is second.source and not second.line
