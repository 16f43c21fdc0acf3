"""Every way in which a request can be wrong, with its exact messages: the files in ``mutations``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.core.problem import Severity
from runner.schema import catalog

FOLDER = Path(__file__).parent / "mutations"
CATALOG = catalog.load_catalog()
RAW_PHRASES = (
    "is not valid under",
    "does not match",
    "Additional properties",
    "is a required property",
    "is not of type",
    "is not one of",
)


def expand(value: Any) -> Any:
    """Write out ``{"$repeat": [text, n]}``."""
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        return {key: expand(child) for key, child in value.items()}
    return [expand(child) for child in value] if isinstance(value, list) else value


def table(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


CASES = [(name, number, case) for name in CATALOG.names for number, case in enumerate(table(name), start=1)]


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n, _, c in CASES], ids=[f"{n}-{i}" for n, i, _ in CASES]
)
def test_messages_of_a_mutation(name: str, case: dict[str, Any]) -> None:
    """A change of the document's example has the errors and warnings of the table, and is never accepted silently."""
    schema = CATALOG.schema(name)
    request = {**schema.document["x-example"], **expand(case.get("change", {}))}
    request.pop(case.get("drop"), None)
    request = schema.normalize(request)

    findings = schema.findings(request)

    messages: dict[Severity, list[str]] = {Severity.ERROR: [], Severity.WARNING: []}
    for finding in findings:
        messages[finding.severity].append(finding.message + (f"; {finding.hint}" if finding.hint else ""))
    assert case.get("errors", []) == messages[Severity.ERROR]
    assert case.get("warnings", []) == messages[Severity.WARNING]
    assert not schema.is_clean(request)
    assert not [raw for raw in RAW_PHRASES for finding in findings if raw in finding.message]


@pytest.mark.parametrize("name", CATALOG.names)
def test_table_is_long_enough(name: str) -> None:
    """Each document has at least 15 changes with errors and 5 with warnings."""
    cases = table(name)

    assert sum("errors" in case for case in cases) >= 15
    assert sum("warnings" in case and "errors" not in case for case in cases) >= 5
