"""
The files that a manifest names with its keys ``prices`` and ``schemas``.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from runner.core.model import Json
from runner.core.prices import PriceTable
from runner.core.problem import Finding, Position, Problem, Severity
from runner.errors import ManifestError
from runner.manifest.document import Document, ProblemHandler, open_document
from runner.schema.catalog import Catalog, completed, schema_findings, short_name
from runner.schema.price_tables import read_price_table


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


def with_own_schemas(catalog: Catalog, document: Document, report: ProblemHandler) -> Catalog:
    """Add the schemas that a manifest names to a catalog; report files that can't be used, with positions in them."""
    names = document.header.value.get("schemas")
    if not isinstance(names, list):
        return catalog
    own: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue

        def refuse(message: str, hint: str | None = None, index: int = index) -> None:
            report(document.header.problem(Finding(("schemas", index), f"schemas: {message}", hint)))

        path = document.path.parent / name
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            refuse(f"{name!r} can't be read: {error.strerror or error}", f"looked for {path}")
            continue
        except json.JSONDecodeError as error:
            report(
                Problem(
                    Severity.ERROR, Position(str(path), error.lineno, error.colno), f"not JSON: {error.msg}"
                )
            )
            continue
        except (ValueError, RecursionError):
            refuse(f"{name!r} is not JSON in UTF-8, or too deep")
            continue
        findings = schema_findings(value)
        for finding in findings:
            report(_located(path, finding))
        if findings:
            continue
        if (short := short_name(path)) in own or short in catalog.names or short == "any":
            refuse(f"there is a schema {short!r} already", "give the file another name")
            continue
        own[short] = completed(value)
    return catalog.with_schemas(own) if own else catalog


def _located(path: Path, finding: Finding) -> Problem:
    """Add the position to a finding about a JSON file, which is YAML too."""
    try:
        header = open_document(path, lambda _problem: None).header
    except ManifestError:
        return Problem(finding.severity, Position(str(path)), finding.message, hint=finding.hint)
    return header.problem(finding)
