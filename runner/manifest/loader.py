"""From a manifest file to checked jobs: the way in for everything that reads manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from msgspec.structs import replace

from runner.core.filenames import safe_name
from runner.core.model import JobSpec, Json
from runner.core.problem import Finding, Problem, Severity
from runner.core.units import parse_duration
from runner.manifest.batch import BatchFile, is_batch_file
from runner.manifest.checker import JobChecker, CheckedHandler, InvalidHandler
from runner.manifest.defaults import DefaultsMerger, Variables, is_literal, read_variables
from runner.manifest.document import Document, Entry, ProblemHandler, open_document
from runner.manifest.duplicates import DuplicateDetector
from runner.manifest.header import VERSION, Header, read_header
from runner.manifest.row_files import RowFileError
from runner.manifest.unchecked_job import EntrySource, UncheckedJob
from runner.schema.catalog import Catalog
from runner.schema.catalog import load_catalog as load_catalog

if TYPE_CHECKING:
    from runner.core.settings import Settings
    from runner.manifest.defaults import Variables
    from runner.manifest.fan_out import Dimensions


class Counts(Struct, frozen=True):
    """
    What reading the jobs came to.

    Attributes:
        jobs: That the manifest stands for.
        refused: That have errors of their own.
        duplicates: That have the id of another, or ask for the same without an id.
    """

    jobs: int
    invalid: int
    duplicates: int


class _JobSource(Protocol):
    """Where drafts come from, as often as they are asked for."""

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Give every job that could be read, and report what is wrong with the others."""


class Manifest:
    """
    A manifest whose header was read, and whose jobs can be streamed.

    Attributes:
        counts: Of the jobs, once they were streamed to the end; None before.
    """

    def __init__(
        self, path: Path, header: Header, source: _JobSource, catalog: Catalog, *, is_strict: bool
    ) -> None:
        self.path = path
        self.header = header
        self.counts: Counts | None = None
        self._source = source
        self._catalog = catalog
        self._is_strict = is_strict

    @property
    def name(self) -> str:
        """Name the manifest's default run directory."""
        return self.header.name

    @property
    def settings(self) -> Settings:
        """What the run needs to know besides its jobs."""
        return self.header.settings

    def jobs(self, report: ProblemHandler, refuse: InvalidHandler | None = None) -> Iterator[JobSpec]:
        """
        Stream the jobs that can be sent, reading the files anew each time.

        Everything that is wrong is reported, each problem once, and ``refuse`` is
        told of each job that is left out. Jobs that are there twice are reported
        after the last one. Nothing must be sent before the end, unless what was
        found wrong is to be left out on purpose; even then not with ``counts.duplicates``.
        """
        if self._is_strict:
            report = _as_errors(report)
        with DuplicateDetector() as census:
            checker = self._checker(report, census.add, refuse)
            check = checker.check
            for draft in self._source.unchecked_jobs(report):
                spec = check(draft)
                if spec is not None:
                    yield spec
            self.counts = Counts(checker.jobs, checker.invalid, self._duplicates(census, report))

    def _duplicates(self, census: DuplicateDetector, report: ProblemHandler) -> int:
        ids, digests = census.ids.repeated(), census.digests.repeated()
        if not ids and not digests:
            return 0
        from runner.manifest.duplicates import DuplicateReporter

        twins = DuplicateReporter(ids, digests, report)
        checker = self._checker(_discard, twins.compare, None)
        for draft in self._source.unchecked_jobs(_discard):
            checker.check(draft)
        return twins.errors

    def _checker(self, report: ProblemHandler, note: CheckedHandler, refuse: InvalidHandler | None) -> JobChecker:
        return JobChecker(
            self._catalog,
            self.path.parent,
            report=report,
            note=note,
            refuse=refuse,
            is_strict=self._is_strict,
        )


def load(
    path: Path,
    report: ProblemHandler,
    *,
    variables: Mapping[str, Json],
    today: date,
    is_strict: bool = False,
) -> Manifest:
    """
    Read the header of a manifest, or of a batch file, and report what is wrong with it.

    The variables are the command line's, over the manifest's own; ``today`` is the
    date in UTC, for ``${date}``. With ``is_strict`` a warning is as bad as an error.

    Raises:
        ManifestError: Nothing can be read; it carries the problem.
    """
    catalog = load_catalog()
    if is_batch_file(path):
        batch = BatchFile(path)
        name = safe_name(path.stem)
        gateway = {} if batch.base_url is None else {"base_url": batch.base_url}
        header = Header(version=VERSION, name=name, values={"gateway": gateway})
        return Manifest(path, header, batch, catalog, is_strict=is_strict)
    if is_strict:
        report = _as_errors(report)
    document = open_document(path, report)
    values = _variables(document, variables, today, report)
    header = read_header(document, report, values.values)
    source = _Entries(document, Expander(DefaultsMerger(header.defaults), values, path.parent))
    return Manifest(path, header, source, catalog, is_strict=is_strict)


class _Entries(Struct, frozen=True):
    """The jobs of a YAML manifest."""

    document: Document
    expander: Expander

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Read and expand the entries one by one."""
        expand = self.expander.expand
        for entry in self.document.entries(report):
            yield from expand(entry, report)


def _variables(document: Document, overrides: Mapping[str, Json], today: date, report: ProblemHandler) -> Variables:
    written = document.header.value.get("vars")
    # What is not a mapping is reported with the rest of the header.
    own = written if isinstance(written, dict) else {}
    variables, findings = read_variables(own, overrides, today.isoformat())
    for finding in findings:
        report(document.header.problem(replace(finding, path=("vars", *finding.path))))
    return variables


def _as_errors(report: ProblemHandler) -> ProblemHandler:
    def strictly(problem: Problem) -> None:
        report(replace(problem, severity=Severity.ERROR))

    return strictly


def _discard(_problem: Problem) -> None:
    """Leave out what was reported before."""


EXPANSION_KEYS = frozenset({"matrix", "repeat", "from", "vars"})
"""The keys of an entry that give its jobs values of their own."""

_NOTHING: Mapping[str, Json] = {}


class Expander:
    """
    Turns the entries of one manifest into jobs.

    Args:
        folder: That row files are found in.
    """

    def __init__(self, inheritance: DefaultsMerger, variables: Variables, folder: FilePath) -> None:
        self._inheritance = inheritance
        self._variables = variables
        self._folder = folder

    def expand(self, entry: Entry, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Stream the jobs of an entry. What is wrong with it is reported, and the jobs concerned left out."""
        value = entry.value
        origin = _entry_source(entry)
        inheritance = self._inheritance
        if inheritance.is_literal and value.keys().isdisjoint(EXPANSION_KEYS) and is_literal(value):
            own = value.get("request", _NOTHING)
            yield UncheckedJob(
                origin,
                value.get("id"),
                inheritance.merge_request(own, inheritance.model_of(own)),
                inheritance.merge_metadata(value.get("metadata", _NOTHING)),
                value.get("extra", _NOTHING),
                value.get("task_id"),
            )
            return
        from runner.manifest.fan_out import read_dimensions

        try:
            axes = read_dimensions(value, self._folder)
            if axes.rows is not None:
                origin.row_file = str(axes.rows.path)
            yield from self._fanned_out(value, axes, origin, report)
        except RowFileError as error:
            self._report_rows_file(origin, value["from"], error, report)

    def _fanned_out(
        self, value: Mapping[str, Json], axes: Dimensions, origin: EntrySource, report: ProblemHandler
    ) -> Iterator[UncheckedJob]:
        from runner.manifest.fan_out import EntryExpansion

        fan = EntryExpansion(value, axes, self._inheritance, self._variables, origin, report)
        if fan.is_invalid:
            return
        yield from fan.jobs()
        if fan.is_empty and not fan.has_row_errors:
            message = f"'{value['from']}' has no rows; the entry makes no job"
            origin.report_once(Finding(("from",), message, severity=Severity.WARNING), report)

    def _report_rows_file(self, origin: EntrySource, name: str, error: RowFileError, report: ProblemHandler) -> None:
        if error.line:
            origin.row_file = str(self._folder / name)
            origin.report_row(error.line, Finding(("from",), error.message, error.hint), report)
        else:
            hint = error.hint or f"row files are found from the manifest's folder: {self._folder / name}"
            origin.report_once(Finding(("from",), error.message, hint), report)


def _entry_source(entry: Entry) -> EntrySource:
    timeout = entry.value.get("timeout")
    return EntrySource(
        entry,
        schema=entry.value.get("schema"),
        timeout_s=None if timeout is None else parse_duration(timeout),
    )


MAX_COLLECTED = 1000


class ProblemCollector:
    """
    Collects problems as they are reported.

    Args:
        on_problem: Gets each of them too.

    Attributes:
        kept: The first `limit` errors and the first `limit` warnings, in the order they came.
    """

    def __init__(
        self, on_problem: Callable[[Problem], None] | None = None, *, limit: int = MAX_COLLECTED
    ) -> None:
        self._on_problem = on_problem
        self.problems: list[Problem] = []
        self._limit = limit
        self._counts: Counter[Severity] = Counter()

    def __call__(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self._counts[problem.severity] += 1
        if self._counts[problem.severity] <= self._limit:
            self.problems.append(problem)
        if self._on_problem is not None:
            self._on_problem(problem)

    @property
    def errors(self) -> int:
        """How many errors were reported, kept or not."""
        return self._counts[Severity.ERROR]

    @property
    def warnings(self) -> int:
        """How many warnings were reported, kept or not."""
        return self._counts[Severity.WARNING]


def summarize_problems(problems: ProblemCollector, jobs: int) -> str:
    """
    Count problems in words.

    >>> counted(ProblemCollector(), 300)
    'no errors, no warnings in 300 jobs'
    """
    found = f"{_some(problems.errors, 'error')}, {_some(problems.warnings, 'warning')}"
    return f"{found} in {_some(jobs, 'job')}" if jobs else found


def _some(count: int, noun: str) -> str:
    return f"{f'{count:,}' if count else 'no'} {noun}{'' if count == 1 else 's'}"
