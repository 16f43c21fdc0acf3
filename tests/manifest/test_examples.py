"""The folders of examples: good manifests have no problems, bad ones exactly those in the file beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from runner.manifest.document import open_document
from runner.schema.catalog import load_catalog
from tests.manifest.helpers import fail, problems_of, read_document

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").glob("*.yaml"))
BAD = sorted((HERE / "bad").glob("*.yaml"))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good(path: Path) -> None:
    """A valid manifest has no problems."""
    assert problems_of(path) == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_editors_agree(path: Path) -> None:
    """A manifest without problems fits the schema, so that an editor underlines nothing."""
    schema = load_catalog().document("manifest")
    read, _ = read_document(path)

    assert read is not None
    manifest = {**open_document(path, fail).header.value, "jobs": [entry.value for entry in read[1]]}
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(manifest)] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad(path: Path) -> None:
    """Everything that is wrong is reported in one pass, with its line and column."""
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()

    assert problems_of(path) == expected
    assert expected, "a bad manifest without a message"


def test_every_message_belongs_to_a_manifest() -> None:
    """Every file of messages has its manifest."""
    assert {path.stem for path in (HERE / "bad").glob("*.txt")} == {path.stem for path in BAD}


def test_other_jobs_keep_their_places() -> None:
    """Invalid jobs are left out, and the jobs around them keep their places."""
    read, problems = read_document(HERE / "bad" / "duplicate_keys.yaml")

    assert read is not None
    assert read[1] == []
    assert [problem.job for problem in problems] == [None, "jobs[0]", "jobs[0]"]


def test_keys_are_never_shown() -> None:
    """A key in a manifest must not get into a log."""
    shown = "".join(
        problems_of(HERE / "bad" / "keys_in_text.yaml") + problems_of(HERE / "bad" / "api_keys.yaml")
    )

    for secret in ("aB3dE5", "0123456789abcdef", "0a1b2c3d", "aa11bb22"):
        assert secret not in shown
