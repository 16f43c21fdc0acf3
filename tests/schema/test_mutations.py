"""Every way in which a request can be wrong, with the exact words for it: the files in ``mutations``."""

from pathlib import Path

import pytest
import yaml

from runner.core.problem import Severity
from runner.schema import catalog

FOLDER = Path(__file__).parent / "mutations"
CATALOG = catalog.load()
RAW_PHRASES = (
    "is not valid under",
    "does not match",
    "Additional properties",
    "is a required property",
    "is not of type",
    "is not one of",
)


def expand(value):
    """Write out ``{"$repeat": [text, n]}``."""
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        return {key: expand(child) for key, child in value.items()}
    return [expand(child) for child in value] if isinstance(value, list) else value


def table(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


CASES = [(name, number, case) for name in CATALOG.names for number, case in enumerate(table(name), start=1)]


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n, _, c in CASES], ids=[f"{n}-{i}" for n, i, _ in CASES]
)
def test_mutation_is_told_in_these_words(name, case):
    """A change of the document's example is refused or warned of as the table says, and never quietly passed."""
    schema = CATALOG.schema(name)
    request = {**schema.document["x-example"], **expand(case.get("change", {}))}
    request.pop(case.get("drop"), None)
    request = schema.normalise(request)

    findings = schema.findings(request)

    said = {Severity.ERROR: [], Severity.WARNING: []}
    for finding in findings:
        said[finding.severity].append(finding.message + (f"; {finding.hint}" if finding.hint else ""))
    assert case.get("refused", []) == said[Severity.ERROR]
    assert case.get("warned", []) == said[Severity.WARNING]
    assert not schema.is_clean(request)
    assert not [raw for raw in RAW_PHRASES for finding in findings if raw in finding.message]


@pytest.mark.parametrize("name", CATALOG.names)
def test_table_is_long_enough(name):
    """Each document has at least 15 refused and 5 warned changes."""
    cases = table(name)

    assert sum("refused" in case for case in cases) >= 15
    assert sum("warned" in case and "refused" not in case for case in cases) >= 5
