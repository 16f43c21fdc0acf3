"""The numbered facts about the API: every reference leads to one, and no number stands for two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.sections import ROOT

PAGE = (ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
DEFINED = re.findall(r"^(?:- |\| )\*\*F(\d+)\*\*", PAGE, re.MULTILINE)
FOLDERS = ("runner", "tests", "schemas", "manifests", ".ci", ".github")
SUFFIXES = {"", ".md", ".py", ".json", ".yaml", ".toml", ".html", ".csv"}


def sources() -> Iterator[Path]:
    """Return every text file of the project."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in [*ROOT.glob("*.*"), *inside]:
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            yield path


def read(path: Path) -> str:
    """Return a file's text on one line, since a reference may be broken across two."""
    return re.sub(r"[\s#]+", " ", path.read_text(encoding="utf-8", errors="replace"))


def references(text: str) -> Iterator[str]:
    """Return the numbers that a text refers to, in the form "fact F12" or "facts F12, F15"."""
    for found in re.findall(r"\b[Ff]acts? (F\d+(?:(?:, | and |-)F\d+)*)", text):
        yield from re.findall(r"F(\d+)", found)


def test_every_number_stands_for_one_fact() -> None:
    """No number is used twice."""
    assert len(set(DEFINED)) == len(DEFINED)
    assert len(DEFINED) > 100


def test_every_reference_leads_to_a_fact() -> None:
    """No comment in the code refers to a fact that the page does not have."""
    found = {(path.name, number) for path in sources() for number in references(read(path))}

    assert [] == sorted((name, number) for name, number in found if number not in DEFINED)
    assert len(found) > 40


def test_every_number_on_the_page_leads_to_a_fact() -> None:
    """The page's own cross references lead somewhere."""
    assert set(re.findall(r"\bF(\d+)\b", PAGE)) == set(DEFINED)


def test_no_text_refers_to_a_document_that_is_not_here() -> None:
    """The facts are on the page; nothing refers to where they were collected."""
    elsewhere = re.compile(r"\bwire[ _]facts?\b", re.IGNORECASE)

    assert [] == [path.name for path in sources() if elsewhere.search(read(path))]


@pytest.mark.parametrize(
    "text", ["(fact F1)", "in the order of fact F1:", "(facts F2, F1)", "(facts F3 and F1)"]
)
def test_references_are_found_in_every_form(text: str) -> None:
    """The forms that comments use are understood."""
    assert "1" in set(references(text))
