"""
Jobs that are there twice, found without holding any job.

Of every job two numbers of 64 bits are kept: of its id and of its request. Equal
numbers are looked for only at the end; where there are any, the jobs are read a
second time, to see whether the texts behind them are equal too and where they stand.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runner.core.problem import Finding, Severity
from runner.manifest.document import Report
from runner.manifest.draft import Draft

_BUCKETS = 256
_MAX_LOOKED_INTO = 10_000
"""Of equal numbers, each kind: enough to show, and the rest is the same mistake again."""


class Hashes:
    """
    Numbers for texts, eight bytes each, sorted into buckets so that few are looked at together.

    >>> hashes = Hashes()
    >>> for text in ("a", "b", "a"):
    ...     hashes.add(text)
    >>> hashes.repeated() == {hash("a")}
    True
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]

    def add(self, text: str) -> None:
        """Note a text."""
        number = hash(text)
        self._buckets[number % _BUCKETS].append(number)

    def repeated(self) -> frozenset[int]:
        """List the numbers that were noted more than once, up to a bound."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket) and len(found) < _MAX_LOOKED_INTO:
                found.update(number for number, count in Counter(bucket).items() if count > 1)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What is compared of one job.

    Attributes:
        digest: Of its request; None where the request is not valid, or only repeats the one before.
        is_named: Whether the manifest gives its id.
    """

    draft: Draft
    job_id: str
    digest: str | None
    is_named: bool


class Duplicates:
    """Notes the jobs of one manifest as they go by, and says at the end which were there twice."""

    def __init__(self) -> None:
        self._ids = Hashes()
        self._digests = Hashes()

    def note(self, job_id: str, digest: str | None) -> None:
        """Note a job."""
        self._ids.add(job_id)
        if digest is not None:
            self._digests.add(digest)

    def report(self, marks: Iterator[Mark], report: Report) -> int:
        """
        Report each job that is there twice, with the place of the first, and say how many are errors.

        Args:
            marks: The same jobs again; they are read only where there is something to find.
        """
        ids, digests = self._ids.repeated(), self._digests.repeated()
        return _compare(marks, ids, digests, report) if ids or digests else 0


def _compare(marks: Iterable[Mark], ids: frozenset[int], digests: frozenset[int], report: Report) -> int:
    by_id: dict[str, Mark] = {}
    by_digest: dict[str, Mark] = {}
    errors = 0
    for mark in marks:
        is_known = False
        if hash(mark.job_id) in ids:
            first = by_id.setdefault(mark.job_id, mark)
            if first is not mark:
                is_known = True
                errors += 1
                _report(mark, _same_id(first, mark), report)
        if mark.digest is not None and hash(mark.digest) in digests:
            first = by_digest.setdefault(mark.digest, mark)
            if first is not mark and not is_known:
                _report(mark, _same_request(first, mark), report)
    return errors


def _report(mark: Mark, finding: Finding, report: Report) -> None:
    draft = mark.draft
    if draft.line:
        draft.origin.report_row(draft.line, finding, report, mark.job_id)
    else:
        draft.origin.report_once(finding, report, draft.origin.label(job_id=mark.job_id))


def _same_id(first: Mark, second: Mark) -> Finding:
    names = _names_of_one_entry(first, second)
    if not first.is_named and not second.is_named:
        what = "several jobs of this entry ask" if names else f"the job at {first.draft.source()} asks"
        return Finding((), f"{what} for the same, and none has an id", "repeat makes a job more than once")
    if names:
        return Finding(
            ("id",), f"several jobs of this entry have the id {second.job_id!r}", f"tell them apart by {names}"
        )
    return Finding(("id",), f"the id {second.job_id!r} is taken by the job at {first.draft.source()}")


def _same_request(first: Mark, second: Mark) -> Finding:
    where = "of this entry too" if _names_of_one_entry(first, second) else f"at {first.draft.source()}"
    message = f"the request is the same as that of {first.job_id!r} {where}, and both are paid for"
    return Finding((), message, "use repeat if that is meant", Severity.WARNING)


def _names_of_one_entry(first: Mark, second: Mark) -> str:
    """Name what tells two jobs of one entry apart; nothing where each has a place of its own."""
    if first.draft.origin is not second.draft.origin or second.draft.line:
        return ""
    return ", ".join(f"${{{name}}}" for name in second.draft.origin.names)
