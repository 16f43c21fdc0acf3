"""`runner schema` prints schemas for editors and other programs."""

from __future__ import annotations

import json

import pytest

from runner.schema.catalog import load_catalog
from tests.cli.command import runner

NAMES = ("manifest", "result", "scenario", *load_catalog().models, *load_catalog().names)


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_printed_as_json(name: str) -> None:
    """The name of a schema or a model prints the schema, and nothing else."""
    result = runner("schema", name)

    assert (0, "") == (result.exit_code, result.stderr)
    assert json.loads(result.stdout)["$schema"].startswith("https://json-schema.org/")


def test_the_manifest_is_the_default() -> None:
    """Without a name, the schema of the manifest is printed."""
    assert runner("schema", "manifest").stdout == runner("schema").stdout


def test_an_unknown_name_gets_the_nearest() -> None:
    """The error suggests the nearest name, and nothing is printed to stdout."""
    result = runner("schema", "manifst")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "did you mean 'manifest'?" in result.stderr
