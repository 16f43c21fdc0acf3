"""From a manifest file to checked jobs: the way in for everything that reads manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner.core.problem import Problem, Severity
from runner.core.spec import JobSpec, Json
from runner.core.value import frozen
from runner.manifest.batch import BatchFile, is_batch_file
from runner.manifest.census import Census
from runner.manifest.checker import Checker, Note, Refuse
from runner.manifest.document import Document, Report, open_document
from runner.manifest.draft import Draft
from runner.manifest.expand import Expander
from runner.manifest.header import VERSION, Header, read_header
from runner.manifest.inheritance import Inheritance
from runner.manifest.run_name import safe_name
from runner.manifest.variables import Variables, read_variables
from runner.schema.catalog import Catalog
from runner.schema.catalog import load as load_catalog

if TYPE_CHECKING:
    from runner.core.settings import Settings


@frozen
class Counts:
    """
    What reading the jobs came to.

    Attributes:
        jobs: That the manifest stands for.
        refused: That have errors of their own.
        duplicates: That have the id of another, or ask for the same without an id.
    """

    jobs: int
    refused: int
    duplicates: int


class _Source(Protocol):
    """Where drafts come from, as often as they are asked for."""

    def drafts(self, report: Report) -> Iterator[Draft]:
        """Give every job that could be read, and report what is wrong with the others."""


class Manifest:
    """
    A manifest whose header was read, and whose jobs can be streamed.

    Attributes:
        counts: Of the jobs, once they were streamed to the end; None before.
    """

    def __init__(
        self, path: Path, header: Header, source: _Source, catalog: Catalog, *, is_strict: bool
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

    def jobs(self, report: Report, refuse: Refuse | None = None) -> Iterator[JobSpec]:
        """
        Stream the jobs that can be sent, reading the files anew each time.

        Everything that is wrong is reported, each problem once, and ``refuse`` is
        told of each job that is left out. Jobs that are there twice are reported
        after the last one. Nothing must be sent before the end, unless what was
        found wrong is to be left out on purpose; even then not with ``counts.duplicates``.
        """
        if self._is_strict:
            report = _as_errors(report)
        with Census() as census:
            checker = self._checker(report, census.note, refuse)
            check = checker.check
            for draft in self._source.drafts(report):
                spec = check(draft)
                if spec is not None:
                    yield spec
            self.counts = Counts(checker.jobs, checker.refused, self._duplicates(census, report))

    def _duplicates(self, census: Census, report: Report) -> int:
        ids, digests = census.ids.repeated(), census.digests.repeated()
        if not ids and not digests:
            return 0
        from runner.manifest.duplicates import Twins

        twins = Twins(ids, digests, report)
        checker = self._checker(_ignore, twins.note, None)
        for draft in self._source.drafts(_ignore):
            checker.check(draft)
        return twins.errors

    def _checker(self, report: Report, note: Note, refuse: Refuse | None) -> Checker:
        return Checker(
            self._catalog,
            self.path.parent,
            report=report,
            note=note,
            refuse=refuse,
            is_strict=self._is_strict,
        )


def load(
    path: Path,
    report: Report,
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
        header = Header(version=VERSION, name=name, written={"gateway": gateway})
        return Manifest(path, header, batch, catalog, is_strict=is_strict)
    if is_strict:
        report = _as_errors(report)
    document = open_document(path, report)
    values = _variables(document, variables, today, report)
    header = read_header(document, report, values.values)
    source = _Entries(document, Expander(Inheritance(header.defaults), values, path.parent))
    return Manifest(path, header, source, catalog, is_strict=is_strict)


@frozen
class _Entries:
    """The jobs of a YAML manifest."""

    document: Document
    expander: Expander

    def drafts(self, report: Report) -> Iterator[Draft]:
        """Read and expand the entries one by one."""
        expand = self.expander.drafts
        for entry in self.document.entries(report):
            yield from expand(entry, report)


def _variables(document: Document, overrides: Mapping[str, Json], today: date, report: Report) -> Variables:
    written = document.header.value.get("vars")
    # What is not a mapping is reported with the rest of the header.
    own = written if isinstance(written, dict) else {}
    variables, findings = read_variables(own, overrides, today.isoformat())
    for finding in findings:
        report(document.header.problem(replace(finding, path=("vars", *finding.path))))
    return variables


def _as_errors(report: Report) -> Report:
    def strictly(problem: Problem) -> None:
        report(replace(problem, severity=Severity.ERROR))

    return strictly


def _ignore(_problem: Problem) -> None:
    """Leave out what was reported before."""
