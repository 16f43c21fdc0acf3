"""From a manifest file to checked jobs: the entry point for everything that reads manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from runner.core.filenames import DB_NAME, RESULTS_NAME, safe_name
from runner.core.model import JobSpec, Json
from runner.core.problem import Finding, Position, Problem, Severity
from runner.core.sanitize import command_text
from runner.core.units import format_count, parse_duration
from runner.disk import open_regular
from runner.errors import ManifestError, UsageError
from runner.manifest.checker import MAX_ID_LENGTH, CheckedHandler, InvalidHandler, JobChecker
from runner.manifest.document import Document, ProblemHandler, discard, open_manifest, read_first_row
from runner.manifest.duplicates import DuplicateDetector, DuplicateReporter, Repeated
from runner.manifest.fan_out import EntryExpansion, read_dimensions
from runner.manifest.header import DefaultsMerger, is_literal, read_header, with_own_schemas
from runner.manifest.json_rows import JSONL_SUFFIXES
from runner.manifest.row_files import BatchFile
from runner.manifest.row_readers import RowFileError
from runner.manifest.settings import Header, Variables
from runner.manifest.unchecked_job import EntrySource, UncheckedJob
from runner.schema.catalog import Catalog, load_catalog
from runner.schema.wording import did_you_mean

_COUNTED = 10_000


class Counts(Struct, frozen=True):
    """
    How many jobs of each kind a manifest has.

    Attributes:
        jobs: All of them.
        invalid: Jobs with errors of their own.
        duplicates: Jobs with the id of another one, or without an id and with the request of another one.
        unused_variables: Variables of the command line that have no effect.
        others: Errors that are of no job, such as one in the budget.
    """

    jobs: int
    invalid: int
    duplicates: int
    unused_variables: int = 0
    others: int = 0

    @property
    def is_usable(self) -> bool:
        """Whether the valid jobs may run without the invalid ones."""
        return not self.duplicates and not self.unused_variables and not self.others


class _JobSource(Protocol):
    """The jobs of a manifest or of a batch file, as often as they are read."""

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Stream every job that could be read, and report what is wrong with the others."""


class Manifest(Struct):
    """
    A manifest whose header was read, and whose jobs can be streamed.

    Attributes:
        folder: Where relative paths of local files begin.
        errors: How many the header has.
        counts: Of the jobs, once they were streamed to the end; None before.
    """

    path: Path
    header: Header
    _source: _JobSource
    _catalog: Catalog
    folder: Path
    _is_strict: bool
    errors: int = 0
    counts: Counts | None = None

    def jobs(
        self,
        report: ProblemHandler,
        on_invalid: InvalidHandler | None = None,
        on_count: Callable[[int], None] = lambda _count: None,
    ) -> Iterator[JobSpec]:
        """
        Stream the valid jobs, reading the files again each time.

        Every problem is reported once, and ``on_invalid`` gets each job that is left
        out; of one that can't be read it gets the id, or a name by its place, and no request.
        ``on_count`` gets the number of valid jobs before a job, at the first one and at
        every 10,000th. Duplicate jobs and variables without effect are reported after the last job.
        Nothing must be sent before the end, unless invalid jobs are left out on purpose;
        even then only if ``counts.is_usable``.
        """
        if self._is_strict:
            report = _as_errors(report)
        with DuplicateDetector() as detector:
            checker = self._checker(report, detector.add, on_invalid)
            check, count = checker.check, 0
            others = self.errors
            unread: dict[tuple[str | None, str, int], tuple[str, Problem]] = {}

            def report_unread(problem: Problem) -> None:
                nonlocal others
                report(problem)
                is_error = problem.severity is Severity.ERROR
                is_of_one_job = is_error and problem.job is not None and problem.path not in _TABLE_KEYS
                if (is_error or self._is_strict) and not is_of_one_job:
                    others += 1
                elif is_error and on_invalid is not None:
                    # Of an entry, several lines may be wrong; each row of its files is a job of its own.
                    file, line, _ = problem.position
                    place = problem.job, file, 0 if file == str(self.path) else line
                    if place not in unread:
                        job = _unread_job(problem, checker.jobs)
                        unread[place] = job.job_id, problem
                        if job.job_id in str(problem.job):
                            # A name by its place is nobody's id.
                            detector.add_id(job.job_id)
                        on_invalid(job, problem.message)
                        checker.jobs += 1
                        checker.invalid += 1

            for job in self._source.unchecked_jobs(report_unread):
                spec = check(job)
                if spec is not None:
                    if count % _COUNTED == 0:
                        on_count(count)
                    count += 1
                    yield spec
            repeated = detector.repeated()
        duplicates = self._report_duplicates(repeated, unread.values(), report) if any(repeated) else 0
        unused = self._report_unused_variables(report)
        self.counts = Counts(checker.jobs, checker.invalid, duplicates, unused, others)

    def _report_unused_variables(self, report: ProblemHandler) -> int:
        variables = self.header.variables
        unused = [name for name in variables.overrides if name not in variables.used]
        for name in unused:
            known = sorted(variables.used)
            hint = did_you_mean(name, known) or f"the manifest uses {', '.join(known[:20]) or 'none'}"
            message = f"--var {name}: the manifest has no variable and no placeholder of this name"
            report(Problem(Severity.ERROR, Position(str(self.path)), message, hint=hint))
        return len(unused)

    def _report_duplicates(
        self, repeated: Repeated, unread: Iterable[tuple[str, Problem]], report: ProblemHandler
    ) -> int:
        reporter = DuplicateReporter(*repeated, report)
        for job_id, problem in unread:
            if hash(job_id) in reporter.ids:
                reporter.errors += 1
                message, hint = f"another job has the id {job_id!r} too", "each job needs an id of its own"
                report(replace(problem, message=message, path="id", hint=hint))
        checker = self._checker(discard, reporter.compare, None)
        for job in self._source.unchecked_jobs(discard):
            checker.check(job)
        return reporter.errors

    def _checker(
        self, report: ProblemHandler, on_checked: CheckedHandler, on_invalid: InvalidHandler | None
    ) -> JobChecker:
        return JobChecker(
            self._catalog,
            self.folder,
            report=report,
            on_checked=on_checked,
            on_invalid=on_invalid,
            is_strict=self._is_strict,
            inputs=self.header.settings.inputs if "inputs" in self.header.values else None,
        )


def load(
    path: Path,
    report: ProblemHandler,
    *,
    variables: Mapping[str, Json],
    today: date,
    folder: Path | None = None,
    is_strict: bool = False,
) -> Manifest:
    """
    Read the header of a manifest, or of a batch file, and report what is wrong with it.

    Args:
        variables: From the command line; they replace the manifest's own.
        today: The date in UTC, for ``${date}``.
        folder: Where relative paths of local files and row files begin; None for the folder of the manifest.
        is_strict: Whether a warning counts as an error.

    Raises:
        ManifestError: Nothing can be read; it has the problem.
        UsageError: A variable is not text that can be sent.
    """
    _require_unicode(variables)
    _require_manifest(path)
    folder = folder or path.parent
    problems = ProblemCollector(_as_errors(report) if is_strict else report)
    document = open_manifest(path, problems)
    if document is None:
        batch = BatchFile(path)
        gateway = {} if batch.base_url is None else {"base_url": batch.base_url}
        header = Header(
            name=safe_name(path.stem), variables=Variables({}, variables), values={"gateway": gateway}
        )
        return Manifest(path, header, batch, load_catalog(), folder, is_strict)
    own = with_own_schemas(document, problems) if "schemas" in document.header.value else None
    header = read_header(document, problems, variables, own, today=today)
    jobs = _EntryJobs(document, DefaultsMerger(header.defaults), header.variables, folder)
    errors = problems.errors + (problems.warnings if is_strict else 0)
    return Manifest(path, header, jobs, own or load_catalog(), folder, is_strict, errors)


_TABLES = (".csv", ".tsv", ".xlsx")


def _require_manifest(path: Path) -> None:
    """Raise for another file that people have beside their manifests; the problem has the right command."""
    found = _what_else(path)
    if found is not None:
        message, hint = found
        problem = Problem(Severity.ERROR, Position(str(path)), message, hint=hint)
        raise ManifestError(f"{path} can't be read as a manifest", problems=[problem])


def _what_else(path: Path) -> tuple[str, str] | None:
    if path.is_dir():
        if (path / DB_NAME).exists() or (path / RESULTS_NAME).exists():
            return (
                "this is a run directory, not a manifest",
                f"to continue it: {command_text('runner', 'resume', path)}",
            )
        return None
    if path.suffix.lower() in _TABLES and path.is_file():
        hint = f"name it in the 'from' of a job: {{from: {path.name}, ...}}; `runner init` writes a manifest to start with"
        return "this is a table, not a manifest", hint
    if path.suffix.lower() in JSONL_SUFFIXES:
        try:
            with open_regular(path) as stream:
                names = read_first_row(stream).keys()
        except OSError:
            return None
        if "custom_id" not in names and {"schema_version", "job_id"} <= names:
            hint = f"to run what did not succeed: {command_text('runner', 'rerun', path)}"
            return "this is a results file, not a manifest", hint
    return None


_TABLE_KEYS = frozenset({"from", "csv", "sheet", "where"})
"""The paths of errors that hide how many jobs an entry has: a row file can't be read to its end."""


def _unread_job(problem: Problem, index: int) -> JobSpec:
    """Return what is known of a job that can't be read: its id, or else its place in the manifest."""
    label, position = problem.job or "", problem.position
    entry, _, job_id = label.partition(" ")
    job_id = job_id.strip('"')
    if not job_id or "${" in job_id:
        job_id = f"{entry} {Path(position.file).name}:{position.line}"[-MAX_ID_LENGTH:]
    return JobSpec(job_id, index, "", "", {}, "", source=position)


def _require_unicode(variables: Mapping[str, Json]) -> None:
    for name, value in variables.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError as error:
            # A byte of the command line that is not UTF-8 is one; it would be sent as a question mark.
            half = ascii(error.object[error.start])
            raise UsageError(
                f"--var {name!a}: {half} is not a character: the value is not UTF-8",
                hint="write it into a file of UTF-8, such as under `vars` in the manifest",
            ) from None


def _as_errors(report: ProblemHandler) -> ProblemHandler:
    def report_error(problem: Problem) -> None:
        report(replace(problem, severity=Severity.ERROR))

    return report_error


_EXPANSION_KEYS = frozenset({"matrix", "repeat", "from", "vars"})
"""The keys of an entry that give its jobs values of their own."""

_NOTHING: Mapping[str, Json] = {}


class _EntryJobs(Struct, frozen=True):
    """The jobs of a YAML manifest: its entries, expanded."""

    document: Document
    defaults: DefaultsMerger
    variables: Variables
    folder: Path
    """Row files are relative to it."""

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Stream the jobs. What is wrong with an entry is reported, and the jobs concerned left out."""
        defaults, expand = self.defaults, self._expand
        for entry in self.document.entries(report):
            value = entry.value
            timeout = value.get("timeout")
            timeout_s = None if timeout is None else parse_duration(timeout)
            source = EntrySource(entry, schema=value.get("schema"), timeout_s=timeout_s)
            if not (defaults.is_literal and value.keys().isdisjoint(_EXPANSION_KEYS) and is_literal(value)):
                yield from expand(value, source, report)
                continue
            request = value.get("request", _NOTHING)
            yield UncheckedJob(
                source,
                value.get("id"),
                defaults.merge_request(request, defaults.model_of(request)),
                defaults.merge_metadata(value.get("metadata", _NOTHING)),
                value.get("extra", _NOTHING),
                value.get("task_id"),
            )

    def _expand(
        self, value: Mapping[str, Json], source: EntrySource, report: ProblemHandler
    ) -> Iterator[UncheckedJob]:
        try:
            dimensions = read_dimensions(value, self.folder)
            expansion = EntryExpansion(value, dimensions, self.defaults, self.variables, source, report)
            if expansion.is_invalid:
                return
            yield from expansion.jobs()
            if expansion.is_empty and not expansion.has_row_errors:
                source.report_once(_empty_finding(value), report)
        except RowFileError as error:
            finding = Finding((error.key,), error.message, error.hint)
            if error.line and error.path is not None:
                source.row_file = str(error.path)
                source.report_row(error.line, finding, report, column=error.column)
                return
            if error.path is not None and error.hint is None:
                hint = f"row files are relative to the manifest's folder: {error.path}"
                finding = replace(finding, hint=hint)
            source.report_once(finding, report)


def _empty_finding(entry: Mapping[str, Json]) -> Finding:
    names = entry["from"]
    shown = names if isinstance(names, str) else ", ".join(names)
    message = f"'{shown}' has no rows" + (" that meet 'where'" if "where" in entry else "")
    return Finding(("from",), f"{message}; the entry makes no job", severity=Severity.WARNING)


MAX_COLLECTED = 1000


class ProblemCollector:
    """
    Collects problems as they are reported.

    Args:
        on_problem: Called with each problem, if given.

    Attributes:
        problems: The first `limit` errors and the first `limit` warnings, in the order they were reported.
        errors, warnings: How many there were, including those that were not kept.
    """

    def __init__(self, on_problem: ProblemHandler | None = None, *, limit: int = MAX_COLLECTED) -> None:
        self._on_problem = on_problem or discard
        self.problems: list[Problem] = []
        self.errors = self.warnings = 0
        self._limit = limit

    def __call__(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is within the limit."""
        if problem.severity is Severity.ERROR:
            self.errors = count = self.errors + 1
        else:
            self.warnings = count = self.warnings + 1
        if count <= self._limit:
            self.problems.append(problem)
        self._on_problem(problem)


def summarize_problems(problems: ProblemCollector, jobs: int) -> str:
    """
    Count problems and jobs in words.

    >>> summarize_problems(ProblemCollector(), 300)
    'no errors, no warnings in 300 jobs'
    """
    errors = format_count(problems.errors, "error") if problems.errors else "no errors"
    warnings = format_count(problems.warnings, "warning") if problems.warnings else "no warnings"
    return f"{errors}, {warnings}" + (f" in {format_count(jobs, 'job')}" if jobs else "")
