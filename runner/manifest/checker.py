"""
From an unchecked job to one that can be sent: normalized, checked, named and hashed.

Nearly every job takes the short way: its request is clean, and only its digest has to be
computed. Everything else is for jobs with problems to report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.core.model import JobSpec, Json
from runner.core.problem import Finding, Severity
from runner.core.settings import Inputs
from runner.manifest.document import ProblemHandler
from runner.manifest.unchecked_job import UncheckedJob, automatic_id, canonical_json, request_digest
from runner.schema.catalog import Catalog
from runner.schema.request_schema import RequestSchema

MAX_ID_LENGTH = 200
# Line and paragraph separators end a line of the results for many readers; a lone surrogate has no UTF-8.
_NOT_IN_IDS = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"

_NOT_JSON = Finding(("request",), "the request has a number that JSON does not have (NaN or an infinity)")

MAX_EXPLAINED = 10_000
"""Invalid jobs after which requests that are not clean are no longer explained: each takes most of a millisecond."""
_NOT_EXPLAINED = Finding(("request",), f"not checked further: {MAX_EXPLAINED:,} jobs are invalid already")

CheckedHandler = Callable[[UncheckedJob, str, str | None], None]
"""Takes a job, its id, and the digest of its request (None if it is invalid, or an intended repetition)."""

InvalidHandler = Callable[[JobSpec, str], None]
"""Takes what is known of an invalid job, and why it is invalid, in a sentence."""


class JobChecker(Struct):
    """
    Checks the jobs of one manifest in their order.

    Attributes:
        jobs: How many were checked.
        invalid: How many of them can't be sent.
    """

    catalog: Catalog
    folder: Path
    report: ProblemHandler
    on_checked: CheckedHandler
    on_invalid: InvalidHandler | None = None
    is_strict: bool = False
    inputs: Inputs | None = None
    jobs: int = 0
    invalid: int = 0
    _first_digest: str | None = None

    def check(self, job: UncheckedJob) -> JobSpec | None:
        """Return a job as it can be sent; None if it is invalid, which was reported."""
        index = self.jobs
        self.jobs = index + 1
        findings: list[Finding] = []
        request, template = job.request, job.template
        if template is not None and template.is_known_clean(request):
            schema_name = template.schema_name
        else:
            request, schema_name, is_clean = self._check_request(job, findings)
            template = template if is_clean else None
        if job.extra:
            request = _with_extra(request, job.extra, findings)
            template = None
        try:
            digest = request_digest(request) if template is None else template.digest(request, schema_name)
        except ValueError:
            digest = ""
            findings.append(_NOT_JSON)
        job_id = job.job_id
        # A printable text contains nothing that ids must not, and the question is cheap.
        if (
            type(job_id) is not str
            or not 0 < len(job_id) <= MAX_ID_LENGTH
            or not job_id.isprintable()
            or job_id.isspace()
        ):
            job_id = _job_id(job, digest, findings)
        if job.task_id is not None:
            findings += _task_id_findings(job.task_id)
        spec = JobSpec(
            job_id,
            index,
            str(request.get("model", "")),
            schema_name,
            request,
            digest,
            job.metadata,
            job.source.timeout_s,
            job.task_id,
            tuple(finding.message for finding in findings) if findings else (),
            job.position(),
        )
        if findings and not self._report_findings(job, spec, findings):
            self.on_checked(job, job_id, None)
            return None
        self.on_checked(job, job_id, digest if job.repetition is None else self._comparable(job, digest))
        return spec

    def _check_request(self, job: UncheckedJob, findings: list[Finding]) -> tuple[dict[str, Json], str, bool]:
        """Normalize and check a request; return it with the name of its schema, and whether it is clean."""
        request = job.request
        schema = self.catalog.select(request, job.source.schema)
        if isinstance(schema, Finding):
            findings.append(_under_request(schema))
            return request, "", False
        request = schema.normalize(request)
        if not schema.is_clean(request):
            return self._explain(request, schema, findings), schema.name, False
        template = job.template
        if template is not None and not template.schema_name and request is job.request:
            template.set_clean_example(request, schema)
        return request, schema.name, True

    def _explain(
        self, request: dict[str, Json], schema: RequestSchema, findings: list[Finding]
    ) -> dict[str, Json]:
        """Check a request that is not clean as it is: it may name local files, or be invalid."""
        if None in request.values():
            # Only lines of batch files have nulls here: elsewhere they were removed before.
            request = {key: value for key, value in request.items() if value is not None}
        if self.invalid >= MAX_EXPLAINED and self.on_invalid is None:
            findings.append(_NOT_EXPLAINED)
            return request
        # Most manifests name no file, and have only clean requests.
        from runner.manifest.local_files import attach_files

        attached = attach_files(request, schema, self.folder, self.inputs)
        if attached is None:
            findings += map(_under_request, schema.findings(request))
            return request
        findings += map(_under_request, attached.findings)
        if not schema.is_clean(attached.stand_in):
            findings += map(_under_request, schema.findings(attached.stand_in))
        if attached.extra_bytes:
            body_bytes = len(canonical_json(attached.stand_in)) + attached.extra_bytes
            if finding := schema.body_finding(body_bytes):
                findings.append(_under_request(finding))
        return attached.request

    def _report_findings(self, job: UncheckedJob, spec: JobSpec, findings: list[Finding]) -> bool:
        """Report findings, and return whether the job can be sent nevertheless."""
        for finding in findings:
            job.report(finding, self.report)
        errors = [found for found in findings if self.is_strict or found.severity is Severity.ERROR]
        if not errors:
            return True
        self.invalid += 1
        if self.on_invalid is not None:
            self.on_invalid(spec._replace(warnings=()), errors[0].message)
        return False

    def _comparable(self, job: UncheckedJob, digest: str) -> str | None:
        """Return the digest of a repetition; None if it equals the first one's, which is intended."""
        if job.repetition == 1:
            self._first_digest = digest
            return digest
        return None if digest == self._first_digest else digest


def _with_extra(
    request: dict[str, Json], extra: Mapping[str, Json], findings: list[Finding]
) -> dict[str, Json]:
    for key in extra:
        path = ("extra", key)
        if key in request:
            message = f"extra: {key!r} is in the request too"
            findings.append(Finding(path, message, "keep one of them"))
        else:
            message = f"extra: {key!r} is added to the body unchecked"
            findings.append(Finding(path, message, severity=Severity.WARNING))
    return {**request, **extra}


def _job_id(job: UncheckedJob, digest: str, findings: list[Finding]) -> str:
    """Return the automatic id of a job without one, or find what is wrong with an unusual one."""
    job_id = job.job_id
    if job_id is None:
        return automatic_id(str(job.request.get("model", "job")), digest, job.repetition)
    if type(job_id) is int:
        return str(job_id)
    if type(job_id) is not str:
        problem = f"{str(job_id)[:80]} is not text"
    elif not job_id.strip():
        problem = "it is empty"
    elif len(job_id) > MAX_ID_LENGTH:
        problem = f"it has {len(job_id)} characters"
    elif not job_id.isprintable() and re.search(_NOT_IN_IDS, job_id):
        problem = f"{job_id!r} has a control character in it"
    else:
        return job_id
    findings.append(Finding(("id",), f"id: {problem}", f"an id is text of 1 to {MAX_ID_LENGTH} characters"))
    return str(job_id)[:MAX_ID_LENGTH]


def _task_id_findings(task_id: Json) -> list[Finding]:
    # Few jobs name a task, and what reads the API's answers is slow to import.
    from runner.core.wire import task_id_error

    problem = task_id_error(task_id) if isinstance(task_id, str) else "this is not text"
    return [Finding(("task_id",), f"task_id: {problem}")] if problem else []


def _under_request(finding: Finding) -> Finding:
    return replace(finding, path=("request", *finding.path))
