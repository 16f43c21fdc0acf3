"""Price tables: the one that comes with the program, and those that manifests have or name."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path

from runner.core.model import Json
from runner.core.prices import PriceTable
from runner.core.problem import Finding, Problem, Severity
from runner.errors import ManifestError
from runner.manifest.document import ProblemHandler, open_document
from runner.schema.catalog import load_catalog
from runner.schema.pricing import read_price_table


@cache
def shipped_prices() -> PriceTable:
    """Read the table that comes with the program, once."""
    problems: list[Problem] = []
    table = read_price_file(load_catalog().folder / "prices.yaml", None, problems.append)
    assert table is not None, problems
    return table


def read_price_file(path: Path, today: date | None, report: ProblemHandler) -> PriceTable | None:
    """
    Read a price table, and report what is wrong with it; None if it has errors.

    Args:
        today: In UTC; a table that was last checked long ago gets a warning. None for no such warnings.

    Raises:
        ManifestError: Nothing can be read; it has the problem.
    """
    problems: list[Problem] = []
    entry = open_document(path, problems.append, has_jobs=False).header
    table, findings = read_price_table(entry.value, today)
    problems += entry.problems(findings)
    for problem in problems:
        report(problem)
    return None if any(problem.severity is Severity.ERROR for problem in problems) else table


def read_prices_key(
    value: Json, folder: Path, today: date, report: ProblemHandler
) -> tuple[PriceTable | None, list[Finding]]:
    """
    Read the key ``prices`` of a manifest: a table, or the name of a file with one.

    Problems in the file are reported with their positions there; findings are about the manifest.
    """
    if not isinstance(value, str):
        return read_price_table(value, today, path=("prices",))
    try:
        return read_price_file(folder / value, today, report), []
    except ManifestError as error:
        why = error.problems[0].message if error.problems else error.message
        return None, [Finding(("prices",), f"prices: {value!r}: {why}", f"looked for {folder / value}")]
