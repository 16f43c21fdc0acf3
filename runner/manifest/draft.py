"""A job before it is checked, and the entry that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from runner.core.model import Json
from runner.core.problem import Finding, Position, Problem
from runner.manifest.document import Report, job_label, path_text

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Origin:
    """
    What the jobs of one entry have in common.

    Attributes:
        index: Of the entry among the entries, from 0.
        file: That the positions of its jobs are in: the row file, or the manifest.
        place: The position of a value of the entry, by its path from the entry's root.
        varies_at: Whether what stands at a path, or around it, differs from job to job.
        schema: The schema that the entry names, or None.
        timeout_s: As in `JobSpec`.
        names: That an id of the entry can use to tell its jobs apart.
    """

    index: int
    file: str
    place: Callable[[Path], Position]
    varies_at: Callable[[Path], bool]
    schema: str | None = None
    timeout_s: float | None = None
    names: tuple[str, ...] = ()
    _told: set[tuple[Path, str]] = field(default_factory=set)

    def report(self, finding: Finding, report: Report, *, line: int = 0, job_id: str | None = None) -> None:
        """
        Give a finding its place, and pass it on unless it was told before.

        What is the same for all jobs of the entry is told once, at its place in
        the manifest; what came with a row is told at the row.
        """
        if line and self.varies_at(finding.path):
            position = Position(self.file, line)
        else:
            if (finding.path, finding.message) in self._told:
                return
            self._told.add((finding.path, finding.message))
            position = self.place(finding.path)
        label = job_label(self.index, job_id)
        path = path_text(finding.path)
        report(Problem(finding.severity, position, finding.message, label, path, finding.hint))


@dataclass(slots=True)
class Draft:
    """
    A job with its own values put in, but neither normalised nor checked.

    Attributes:
        job_id: As the manifest gives it, of any type; None where it gives none.
        extra: Fields that go into the body unchecked.
        line: Of its row in the row file, from 1; 0 where there is none.
        repetition: Its number within ``repeat``, from 1; None where nothing is repeated.
    """

    origin: Origin
    job_id: Json
    request: dict[str, Json]
    metadata: Mapping[str, Json]
    extra: Mapping[str, Json] | None = None
    task_id: Json = None
    line: int = 0
    repetition: int | None = None
