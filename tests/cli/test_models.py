"""`runner models`: the table, the parameters of a model, and the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runner.schema.catalog import load_catalog
from tests.cli.command import runner

MODELS = tuple(load_catalog().models)


def test_every_model_and_document_is_listed() -> None:
    """The table is complete, and fits a terminal of 80 columns."""
    result = runner("models")

    assert 0 == result.exit_code
    for name in (*MODELS, *load_catalog().names):
        assert name in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", MODELS)
def test_the_example_pastes_into_a_manifest(name: str, tmp_path: Path) -> None:
    """The examples of `models NAME` are valid under jobs, for each document of the model."""
    lines = runner("models", name).stdout.splitlines()
    starts = [index for index, line in enumerate(lines) if line == "  - id: example"]

    assert starts
    for start in starts:
        job = []
        for line in lines[start:]:
            if not line:
                break
            job.append(line)
        path = tmp_path / "pasted.yaml"
        path.write_text("\n".join(["version: 1", "jobs:", *job]) + "\n")
        result = runner("validate", path)
        assert 0 == result.exit_code
        assert not result.stdout or re.search("placeholder|no longer shows", result.stdout)


def test_an_unknown_model_gets_the_nearest() -> None:
    """The error suggests the nearest name."""
    result = runner("models", "wan2.7-i2")

    assert 2 == result.exit_code
    assert "did you mean 'wan2.7-i2v'?" in result.stderr


def test_json_has_each_parameter() -> None:
    """--json prints the documents and their parameters in order."""
    described = json.loads(runner("models", "wan2.7-r2v", "--json").stdout)

    assert ["wan2.7-r2v", "wan2.7-r2v-subject"] == [document["schema"] for document in described]
    names = [parameter["name"] for parameter in described[0]["parameters"]]
    assert {"model", "prompt", "media"} < set(names)
