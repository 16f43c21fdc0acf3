"""Schemas to stdout, for editors and other programs."""

from __future__ import annotations

import json

import pytest

from runner.schema.catalog import load_catalog
from tests.cli.command import runner

NAMES = ("manifest", "result", *load_catalog().models, *load_catalog().names)


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_printed_as_json(name: str) -> None:
    """Whatever names a schema prints it, and nothing else."""
    ran = runner("schema", name)

    assert (0, "") == (ran.code, ran.err)
    assert json.loads(ran.out)["$schema"].startswith("https://json-schema.org/")


def test_the_manifest_is_the_default() -> None:
    """The schema that people want most needs no name."""
    assert runner("schema", "manifest").out == runner("schema").out


def test_an_unknown_name_gets_the_nearest() -> None:
    """A typo is answered with what was probably meant, and stdout stays empty."""
    ran = runner("schema", "manifst")

    assert (2, "") == (ran.code, ran.out)
    assert "did you mean 'manifest'?" in ran.err
