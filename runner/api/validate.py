"""Validate manifests; nothing is sent, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from os import PathLike
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Problem, Severity
from runner.core.sanitize import command_text
from runner.disk import AnyPath
from runner.errors import ManifestError
from runner.manifest.loader import Manifest, ProblemCollector, load, summarize_problems


class Validation(Struct, frozen=True):
    """
    The result of checking some manifests.

    Attributes:
        jobs: How many jobs the manifests expand to.
        problems: All of them are counted, and the first thousand errors and warnings are kept.
    """

    jobs: int
    problems: ProblemCollector

    @property
    def is_valid(self) -> bool:
        """Whether the manifests can be run."""
        return not self.problems.errors

    def __str__(self) -> str:
        return summarize_problems(self.problems, self.jobs)


def check(
    manifests: AnyPath | Iterable[AnyPath],
    *,
    on_problem: Callable[[Problem], None] | None = None,
    variables: Mapping[str, Json] | None = None,
    strict: bool = False,
    today: date | None = None,
) -> Validation:
    """
    Check every job of a manifest, or of several, and report all problems in one pass and in constant memory.

    Args:
        on_problem: Gets each problem as it is found.
        variables: Over those of the manifests (`--var`).
        strict: Whether warnings are errors.
        today: For ``${date}``; by default the date in UTC.
    """
    problems = ProblemCollector(on_problem)
    today = today or datetime.now(UTC).date()
    jobs = 0
    for path in [manifests] if isinstance(manifests, str | PathLike) else manifests:
        try:
            manifest = load(Path(path), problems, variables=variables or {}, today=today, is_strict=strict)
        except ManifestError as error:
            for problem in error.problems:
                problems(problem)
            continue
        for _ in manifest.jobs(problems):
            pass
        jobs += 0 if manifest.counts is None else manifest.counts.jobs
    return Validation(jobs, problems)


def manifest_error(manifest: Manifest, problems: ProblemCollector) -> ManifestError:
    """Return the error for a manifest that can't be run, with its problems."""
    jobs = manifest.counts.jobs if manifest.counts else 0
    errors = (problem for problem in problems.problems if problem.severity is Severity.ERROR)
    files = list(dict.fromkeys(problem.position.file for problem in errors))[:3] or [str(manifest.path)]
    return ManifestError(
        f"{summarize_problems(problems, jobs)}; nothing was submitted",
        problems=problems.problems,
        hint=f"correct {', '.join(files)}, then check it: {command_text('runner', 'validate', manifest.path)}",
    )
