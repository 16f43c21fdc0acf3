"""
Jobs that are there twice, once the census found equal numbers.

The jobs are read a second time, to see whether the texts behind the numbers are equal
too and where they stand.
"""

from __future__ import annotations

from runner.core.problem import Finding, Severity
from runner.core.value import frozen
from runner.manifest.document import Report
from runner.manifest.draft import Draft


@frozen
class _First:
    """The job that had an id or a request first."""

    draft: Draft
    job_id: str


class Twins:
    """
    Takes in the jobs of a manifest a second time, and reports those that are there twice.

    Attributes:
        errors: Jobs with an id that is taken, and jobs without ids that ask for the same.
    """

    def __init__(self, ids: frozenset[int], digests: frozenset[int], report: Report) -> None:
        self.errors = 0
        self._ids = ids
        self._digests = digests
        self._report = report
        self._by_id: dict[str, _First] = {}
        self._by_digest: dict[str, _First] = {}

    def note(self, draft: Draft, job_id: str, digest: str | None) -> None:
        """Compare a job with those before it."""
        if hash(job_id) in self._ids and self._is_taken(draft, job_id):
            return
        if digest is None or hash(digest) not in self._digests:
            return
        first = self._by_digest.setdefault(digest, _First(draft, job_id))
        if first.draft is not draft:
            self._tell(draft, job_id, _same_request(first, draft))

    def _is_taken(self, draft: Draft, job_id: str) -> bool:
        first = self._by_id.setdefault(job_id, _First(draft, job_id))
        if first.draft is draft:
            return False
        self.errors += 1
        self._tell(draft, job_id, _same_id(first, draft))
        return True

    def _tell(self, draft: Draft, job_id: str, finding: Finding) -> None:
        origin = draft.origin
        shown_id = job_id if draft.job_id is not None else None
        if draft.line:
            origin.report_row(draft.line, finding, self._report, shown_id)
        else:
            origin.report_once(finding, self._report, origin.label(0, shown_id))


def _same_id(first: _First, draft: Draft) -> Finding:
    if draft.job_id is None and first.draft.job_id is None:
        where = "several jobs of this entry ask" if _share_a_place(first.draft, draft) else _at(first, "asks")
        return Finding((), f"{where} for the same, and none has an id", "repeat makes a job more than once")
    if _share_a_place(first.draft, draft):
        names = ", ".join(f"${{{name}}}" for name in draft.origin.names)
        message = f"several jobs of this entry have the id {first.job_id!r}"
        return Finding(("id",), message, f"tell them apart by {names}")
    return Finding(("id",), _at(first, f"has the id {first.job_id!r} too"), "each job needs an id of its own")


def _same_request(first: _First, draft: Draft) -> Finding:
    where = "of this entry too" if _share_a_place(first.draft, draft) else f"at {first.draft.source()}"
    message = f"the request is the same as that of {first.job_id!r} {where}, and both are paid for"
    return Finding((), message, "use repeat if that is meant", Severity.WARNING)


def _at(first: _First, does: str) -> str:
    return f"the job at {first.draft.source()} {does}"


def _share_a_place(first: Draft, second: Draft) -> bool:
    return first.origin is second.origin and not second.line
