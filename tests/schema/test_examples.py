"""The documents' own examples are valid requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.core.problem import Severity
from runner.schema import catalog
from runner.schema.request_schema import RequestSchema

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))
CATALOG = catalog.load_catalog()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_of_a_document_is_clean(path: Path) -> None:
    """The curl example of a document fits its schema, with a warning for the placeholder and for an older form."""
    request = json.loads(path.read_text(encoding="utf-8"))

    schema = CATALOG.select(request)

    assert isinstance(schema, RequestSchema)
    assert f"{path.stem}.txt" == schema.document["x-source"]["document"]
    expected = [Severity.WARNING] if path.stem.startswith(("000", "002")) else []
    assert expected == [finding.severity for finding in schema.findings(request)]
    assert schema.is_clean(request) == (not expected)
    assert schema.normalize(request) is request


def test_every_document_has_an_example() -> None:
    """No document's example goes untested."""
    documents = {CATALOG.document(name)["x-source"]["document"] for name in CATALOG.names} - {None}

    assert documents == {f"{path.stem}.txt" for path in EXAMPLES}


@pytest.mark.parametrize("name", CATALOG.names)
def test_example_inside_a_schema_is_its_documents(name: str) -> None:
    """The example that a schema carries is the document's, so that neither can drift."""
    document = CATALOG.document(name)
    source = document["x-source"]["document"]

    if source is None:
        assert CATALOG.schema(name).findings(document["x-example"]) == []
    else:
        path = Path(__file__).parent / "examples" / source.replace(".txt", ".json")
        assert json.loads(path.read_text(encoding="utf-8")) == document["x-example"]
