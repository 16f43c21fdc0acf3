"""What the tests of this folder read manifests with."""

from __future__ import annotations

from pathlib import Path

from runner.core.problem import Problem
from runner.errors import ManifestError
from runner.manifest.document import Entry, open_document
from runner.manifest.header import Header, read_header


def everything(path: Path) -> tuple[tuple[Header, list[Entry]] | None, list[Problem]]:
    """Read a manifest to its end: what it says (None where it can't be read at all) and what is wrong with it."""
    problems: list[Problem] = []
    try:
        document = open_document(path, problems.append)
    except ManifestError as error:
        return None, [*problems, *error.problems]
    header = read_header(document, problems.append, {"date": "2026-11-21"})
    return (header, list(document.entries(problems.append))), problems


def problems_of(path: Path) -> list[str]:
    """Read a manifest to its end, and say what is wrong with it, naming the file without its folder."""
    return [str(problem).replace(f"{path.parent}/", "") for problem in everything(path)[1]]


def refuse(problem: Problem) -> None:
    """Fail the test: nothing was to be reported."""
    raise AssertionError(str(problem))
