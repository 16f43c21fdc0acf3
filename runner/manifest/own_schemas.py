"""The schemas of a manifest's own: the files that its key `schemas` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.core.problem import Finding, Position, Problem, Severity
from runner.errors import ManifestError
from runner.manifest.document import Document, ProblemHandler, open_document
from runner.schema.catalog import Catalog, short_name


def with_own_schemas(catalog: Catalog, document: Document, report: ProblemHandler) -> Catalog:
    """Add the schemas that a manifest names to a catalog; report files that can't be used, with positions in them."""
    names = document.header.value.get("schemas")
    if not isinstance(names, list):
        return catalog
    # Few manifests have any.
    from runner.schema.own_schema import completed, schema_findings

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
