"""What can be run, as a person and as a program read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.schema.catalog import load_catalog
from tests.cli.command import runner

MODELS = tuple(load_catalog().models)


def test_every_model_and_document_is_listed() -> None:
    """The table leaves nothing out, and fits a terminal of 80 columns."""
    ran = runner("models")

    assert ran.code == 0
    for name in (*MODELS, *load_catalog().names):
        assert name in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("name", MODELS)
def test_the_example_pastes_into_a_manifest(name: str, tmp_path: Path) -> None:
    """What `models NAME` shows under jobs runs as it is, with each document that the model has."""
    lines = runner("models", name).out.splitlines()
    starts = [place for place, line in enumerate(lines) if line == "  - id: example"]

    assert starts
    for start in starts:
        job = []
        for line in lines[start:]:
            if not line:
                break
            job.append(line)
        path = tmp_path / "pasted.yaml"
        path.write_text("\n".join(["version: 1", "jobs:", *job]) + "\n")
        ran = runner("validate", path)
        assert (0, True) == (ran.code, not ran.out or "placeholder" in ran.out)


def test_an_unknown_model_gets_the_nearest() -> None:
    """A typo is answered with what was probably meant."""
    ran = runner("models", "wan2.7-i2")

    assert ran.code == 2
    assert "did you mean 'wan2.7-i2v'?" in ran.err


def test_json_has_each_parameter() -> None:
    """A program gets all that a person sees."""
    described = json.loads(runner("models", "wan2.7-r2v", "--json").out)

    assert ["wan2.7-r2v"] == [document["schema"] for document in described]
    names = [parameter["name"] for parameter in described[0]["parameters"]]
    assert names[:2] == ["model", "subject_reference"]
