"""The folders of examples: each good manifest says nothing, each bad one exactly what stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from runner.manifest.document import open_document
from runner.schema.catalog import load_catalog
from tests.manifest.reading import everything, problems_of, refuse

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").glob("*.yaml"))
BAD = sorted((HERE / "bad").glob("*.yaml"))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good(path: Path) -> None:
    """What may be written in a manifest is read without a word."""
    assert problems_of(path) == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_editors_agree(path: Path) -> None:
    """What is read without a word fits the schema as it stands, so that an editor underlines nothing."""
    schema = load_catalog().document("manifest")
    read, _ = everything(path)

    assert read is not None
    manifest = {**open_document(path, refuse).header.value, "jobs": [entry.value for entry in read[1]]}
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(manifest)] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad(path: Path) -> None:
    """Everything that is wrong is said in one pass, each with its line and column."""
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()

    assert problems_of(path) == expected
    assert expected, "a bad manifest without a message"


def test_every_message_belongs_to_a_manifest() -> None:
    """A message whose manifest was renamed is not tested any more."""
    assert {path.stem for path in (HERE / "bad").glob("*.txt")} == {path.stem for path in BAD}


def test_a_problem_leaves_the_other_jobs_to_be_checked() -> None:
    """Broken jobs are left out, and the jobs around them keep their places."""
    read, problems = everything(HERE / "bad" / "duplicate_keys.yaml")

    assert read is not None
    assert read[1] == []
    assert [problem.job for problem in problems] == [None, "jobs[0]", "jobs[0]"]


def test_what_looks_like_a_key_is_never_shown() -> None:
    """A key that got into a manifest must not get into a log as well."""
    shown = "".join(
        problems_of(HERE / "bad" / "keys_in_text.yaml") + problems_of(HERE / "bad" / "api_keys.yaml")
    )

    for secret in ("aB3dE5", "0123456789abcdef", "0a1b2c3d", "aa11bb22"):
        assert secret not in shown
