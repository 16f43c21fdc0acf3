"""A job before it is checked, and the entry that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from runner.core.model import Json
from runner.core.problem import Finding, Position, Problem
from runner.manifest.document import Entry, ProblemHandler, job_label, path_text

if TYPE_CHECKING:
    from runner.manifest.template import RequestTemplate

Path = tuple[str | int, ...]
"""Keys and indices from the root of an entry, such as ``("request", "media", 0, "url")``."""


class EntrySource(Struct):
    """
    What the jobs of one entry have in common; a batch file is one entry with a job on each line.

    Attributes:
        entry: None for a batch file.
        rows_file: That the lines of its jobs are in; empty where there is none.
        schema: The schema that the entry names, or None.
        timeout_s: As in `JobSpec`.
        names: That an id may use to tell the jobs of the entry apart.
    """

    entry: Entry | None
    row_file: str = ""
    schema: str | None = None
    timeout_s: float | None = None
    variable_names: tuple[str, ...] = ()
    _reported: set[tuple[Path, str]] = field(default_factory=set)

    def label(self, line: int, job_id: Json) -> str:
        """Name one of its jobs as a person finds it again, such as ``jobs[3] "grass-2"``."""
        return job_label(line - 1 if self.entry is None else self.entry.index, job_id)

    def report_once(self, finding: Finding, report: ProblemHandler, label: str | None = None) -> None:
        """Report what is the same for all of its jobs, at its place in the manifest, the first time only."""
        if (finding.path, finding.message) not in self._reported:
            self._reported.add((finding.path, finding.message))
            entry = self.entry
            if entry is None:
                report(_problem(finding, Position(self.row_file), None))
            else:
                report(_problem(finding, entry.position_of(finding), label or entry.label))

    def report_row(self, line: int, finding: Finding, report: ProblemHandler, job_id: Json = None) -> None:
        """Report what came with a row, at its line."""
        report(_problem(finding, Position(self.row_file, line), self.label(line, job_id)))


class UncheckedJob(Struct):
    """
    A job with its own values put in, but neither normalised nor checked.

    Attributes:
        job_id: As the manifest gives it, of any type; None where it gives none.
        extra: Fields that go into the body unchecked.
        line: Of its row, from 1; 0 where it has none.
        repetition: Its number within ``repeat``, from 1; None where nothing is repeated.
        template: That its request was made with; None where it was written out.
    """

    source: EntrySource
    job_id: Json
    request: dict[str, Json]
    metadata: Mapping[str, Json]
    extra: Mapping[str, Json]
    task_id: Json = None
    line: int = 0
    repetition: int | None = None
    template: RequestTemplate | None = None

    def position(self) -> Position:
        """Give the place of the job: its row, or else its entry."""
        origin, line = self.source, self.line
        if line or origin.entry is None:
            return Position(origin.row_file, line)
        return origin.entry.position()

    def report(self, finding: Finding, report: ProblemHandler) -> None:
        """Report what is wrong with the job, at its row or in the manifest, by its path from the entry's root."""
        if self.line and self._is_from_row(finding.path):
            self.source.report_row(self.line, finding, report, self.job_id)
        else:
            self.source.report_once(finding, report, self.source.label(self.line, self.job_id))

    def _is_from_row(self, path: Path) -> bool:
        if self.template is None:
            return True
        if path[:1] != ("request",):
            return False
        within, varying = path[1:], self.template.varying
        if any(within[: len(leaf)] == leaf for leaf in varying):
            return True
        # A null in the row took a key away: what the request lacks is then the row's doing.
        return not within and any(leaf[0] not in self.request for leaf in varying if len(leaf) == 1)


def _problem(finding: Finding, position: Position, label: str | None) -> Problem:
    # People read paths from the request's root, as the API's documents do.
    path = finding.path[1:] if finding.path[:1] == ("request",) else finding.path
    return Problem(finding.severity, position, finding.message, label, path_text(path), finding.hint)
