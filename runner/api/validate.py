"""Read manifests and say what is wrong with them; nothing is sent, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Problem
from runner.errors import ManifestError
from runner.manifest.loader import Manifest, ProblemCollector, counted, load


class Validation(Struct, frozen=True):
    """
    What checking some manifests came to.

    Attributes:
        jobs: That the manifests stand for together.
        problems: All of them, counted; the first thousand errors and warnings are kept.
    """

    jobs: int
    problems: ProblemCollector

    @property
    def is_valid(self) -> bool:
        """Nothing keeps the manifests from being run."""
        return not self.problems.errors

    def __str__(self) -> str:
        return counted(self.problems, self.jobs)


def check(
    manifests: Iterable[Path | str],
    *,
    report: Callable[[Problem], None] | None = None,
    variables: Mapping[str, Json] | None = None,
    strict: bool = False,
    today: date | None = None,
) -> Validation:
    """
    Check manifests to their last job, and report every problem of all of them in one pass.

    Memory stays flat, however many jobs there are.

    Args:
        report: Gets each problem as it is found.
        variables: Over those of the manifests, as `--var`.
        strict: Whether a warning is as bad as an error.
        today: For ``${date}``; by default the date in UTC.
    """
    problems = ProblemCollector()

    def note(problem: Problem) -> None:
        problems(problem)
        if report is not None:
            report(problem)

    day = today or datetime.now(UTC).date()
    jobs = 0
    for path in manifests:
        try:
            manifest = load(Path(path), note, variables=variables or {}, today=day, is_strict=strict)
        except ManifestError as error:
            for problem in error.problems:
                note(problem)
            continue
        for _ in manifest.jobs(note):
            pass
        jobs += 0 if manifest.counts is None else manifest.counts.jobs
    return Validation(jobs, problems)


def manifest_error(manifest: Manifest, problems: ProblemCollector) -> ManifestError:
    """Say that a manifest can't be run as it is, with all that is wrong with it."""
    jobs = manifest.counts.jobs if manifest.counts else 0
    return ManifestError(
        f"{counted(problems, jobs)}; nothing was submitted",
        problems=problems.kept,
        hint=f"correct {manifest.path}, and look again: runner validate {manifest.path}",
    )
