"""
From a draft to a job that can be sent: normalised, checked, named and hashed.

Nearly every job takes the short way: its request is clean, and only its digest
has to be worked out. All else is for jobs that somebody must hear about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath

from msgspec.structs import replace

from runner.core.model import JobSpec, Json
from runner.core.problem import Finding, Severity
from runner.manifest.document import ProblemHandler
from runner.manifest.job_digest import automatic_id, canonical_json, request_digest
from runner.manifest.unchecked_job import Path, UncheckedJob
from runner.schema.catalog import Catalog
from runner.schema.request_schema import RequestSchema

MAX_ID_LENGTH = 200
# Line and paragraph separators end a line of the results for many readers; half a character has no UTF-8.
_NOT_IN_IDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_NOT_JSON = Finding(("request",), "the request holds a number that JSON does not have (NaN or an infinity)")

MAX_EXPLAINED = 10_000
"""Invalid jobs after which others that do not look clean are no longer looked into: each takes most of a millisecond."""
_NOT_EXPLAINED = Finding(("request",), f"after {MAX_EXPLAINED:,} invalid jobs no more are looked into")

CheckedHandler = Callable[[UncheckedJob, str, str | None], None]
"""Takes a job, its id, and the digest of its request (None where it is invalid, or a deliberate repetition)."""

InvalidHandler = Callable[[JobSpec, str], None]
"""Takes what is known of a job that can't be sent, and why, in a sentence."""


class JobChecker:
    """
    Checks the jobs of one manifest in their order.

    Attributes:
        jobs: How many were seen.
        refused: How many of them can't be sent.
    """

    def __init__(
        self,
        catalog: Catalog,
        folder: FilePath,
        *,
        report: ProblemHandler,
        note: CheckedHandler,
        refuse: InvalidHandler | None = None,
        is_strict: bool = False,
    ) -> None:
        self._select = catalog.select
        self._folder = folder
        self._report = report
        self._on_checked = note
        self._on_invalid = refuse
        self._is_strict = is_strict
        self._first_digest: str | None = None
        self.jobs = 0
        self.invalid = 0

    def check(self, draft: UncheckedJob) -> JobSpec | None:
        """Make a draft a job that can be sent; None where it can't be, which was reported."""
        index = self.jobs
        self.jobs = index + 1
        findings: list[Finding] = []
        request, mould = draft.request, draft.template
        if mould is not None and mould.is_known_clean(request):
            schema_name = mould.schema_name
        else:
            request, schema_name, is_clean = self._check_request(draft, findings)
            mould = mould if is_clean else None
        if draft.extra:
            request = _with_extra(request, draft.extra, findings)
            mould = None
        try:
            digest = request_digest(request) if mould is None else mould.digest(request, schema_name)
        except ValueError:
            digest = ""
            findings.append(_NOT_JSON)
        job_id = draft.job_id
        # What is printable holds nothing that ids must not; asking is quick.
        if (
            type(job_id) is not str
            or not 0 < len(job_id) <= MAX_ID_LENGTH
            or not job_id.isprintable()
            or job_id.isspace()
        ):
            job_id = _job_id(draft, digest, findings)
        task_id = draft.task_id
        if task_id is not None:
            from runner.core.wire import task_id_error

            problem = task_id_error(task_id) if isinstance(task_id, str) else "this is not text"
            if problem:
                findings.append(Finding(("task_id",), f"task_id: {problem}"))
        spec = JobSpec(
            job_id,
            index,
            str(request.get("model", "")),
            schema_name,
            request,
            digest,
            draft.metadata,
            draft.source.timeout_s,
            task_id,
            tuple(found.message for found in findings) if findings else (),
            draft.position(),
        )
        if findings and not self._report_findings(draft, spec, findings):
            self._on_checked(draft, job_id, None)
            return None
        self._on_checked(draft, job_id, digest if draft.repetition is None else self._comparable_digest(draft, digest))
        return spec

    def _check_request(self, draft: UncheckedJob, findings: list[Finding]) -> tuple[dict[str, Json], str, bool]:
        """Normalise and check a request; give it with the name of its schema, and whether it is clean."""
        request = draft.request
        schema = self._select(request, draft.source.schema)
        if isinstance(schema, Finding):
            findings.append(_under("request", schema))
            return request, "", False
        request = schema.normalize(request)
        if not schema.is_clean(request):
            return self._explain_request(request, schema, findings), schema.name, False
        mould = draft.template
        if mould is not None and not mould.schema_name and request is draft.request:
            mould.set_clean_example(request, schema)
        return request, schema.name, True

    def _explain_request(
        self, request: dict[str, Json], schema: RequestSchema, findings: list[Finding]
    ) -> dict[str, Json]:
        """Check a request that is not clean as it stands: it may hold local files, or be wrong."""
        if None in request.values():
            # Only the lines of batch files get here with nulls: elsewhere they were taken away before.
            request = {key: value for key, value in request.items() if value is not None}
        if self.invalid >= MAX_EXPLAINED and self._on_invalid is None:
            findings.append(_NOT_EXPLAINED)
            return request
        # Most manifests name no file, and hold no request that is worth a second look.
        from runner.manifest.local_files import attach_files

        attached = attach_files(request, schema, self._folder)
        if attached is None:
            findings += (_under("request", found) for found in schema.findings(request))
            return request
        found = [*attached.findings]
        if not schema.is_clean(attached.stand_in):
            found += schema.findings(attached.stand_in)
        if attached.extra_bytes:
            size = schema.body_finding(len(canonical_json(attached.stand_in)) + attached.extra_bytes)
            found += [size] if size else []
        findings += (_under("request", one) for one in found)
        return attached.request

    def _report_findings(self, draft: UncheckedJob, spec: JobSpec, findings: list[Finding]) -> bool:
        """Report what was found, and say whether the job can be sent nevertheless."""
        for finding in findings:
            draft.report(finding, self._report)
        errors = [found for found in findings if self._is_strict or found.severity is Severity.ERROR]
        if not errors:
            return True
        self.invalid += 1
        if self._on_invalid is not None:
            self._on_invalid(spec._replace(warnings=()), errors[0].message)
        return False

    def _comparable_digest(self, draft: UncheckedJob, digest: str) -> str | None:
        """Leave out the digest of a repetition that asks for the same as the first: it is meant."""
        if draft.repetition == 1:
            self._first_digest = digest
            return digest
        return None if digest == self._first_digest else digest


def _with_extra(
    request: dict[str, Json], extra: Mapping[str, Json], findings: list[Finding]
) -> dict[str, Json]:
    for key in extra:
        path: Path = ("extra", key)
        if key in request:
            message = f"extra: {key!r} is in the request too"
            findings.append(Finding(path, message, "keep one of them"))
        else:
            message = f"extra: {key!r} goes into the body unchecked"
            findings.append(Finding(path, message, severity=Severity.WARNING))
    return {**request, **extra}


def _job_id(draft: UncheckedJob, digest: str, findings: list[Finding]) -> str:
    """Give a job without an id an automatic one, and find out what is wrong with an odd one."""
    job_id = draft.job_id
    if job_id is None:
        return automatic_id(str(draft.request.get("model", "job")), digest, draft.repetition)
    if type(job_id) is int:
        return str(job_id)
    if type(job_id) is not str:
        problem = f"{str(job_id)[:80]} is not text"
    elif not job_id.strip():
        problem = "it is empty"
    elif len(job_id) > MAX_ID_LENGTH:
        problem = f"it has {len(job_id)} characters"
    elif _NOT_IN_IDS.search(job_id):
        problem = f"{job_id!r} has a control character in it"
    else:
        return job_id
    findings.append(Finding(("id",), f"id: {problem}", f"an id is text of 1 to {MAX_ID_LENGTH} characters"))
    return str(job_id)[:MAX_ID_LENGTH]


def _under(key: str, finding: Finding) -> Finding:
    return replace(finding, path=(key, *finding.path))
