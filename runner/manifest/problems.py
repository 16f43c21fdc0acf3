"""All that is wrong with what was read: counted in full, kept up to a bound."""

from __future__ import annotations

from collections import Counter

from runner.core.problem import Problem, Severity

MAX_KEPT = 1000


class Problems:
    """
    Takes problems as they are reported.

    Attributes:
        kept: The first `limit` errors and the first `limit` warnings, in the order they came.
    """

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self.kept: list[Problem] = []
        self._limit = limit
        self._counts: Counter[Severity] = Counter()

    def __call__(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self._counts[problem.severity] += 1
        if self._counts[problem.severity] <= self._limit:
            self.kept.append(problem)

    @property
    def errors(self) -> int:
        """How many errors were reported, kept or not."""
        return self._counts[Severity.ERROR]

    @property
    def warnings(self) -> int:
        """How many warnings were reported, kept or not."""
        return self._counts[Severity.WARNING]


def counted(problems: Problems, jobs: int) -> str:
    """
    Count problems in words.

    >>> counted(Problems(), 300)
    'no errors, no warnings in 300 jobs'
    """
    found = f"{_some(problems.errors, 'error')}, {_some(problems.warnings, 'warning')}"
    return f"{found} in {_some(jobs, 'job')}" if jobs else found


def _some(count: int, noun: str) -> str:
    return f"{f'{count:,}' if count else 'no'} {noun}{'' if count == 1 else 's'}"
