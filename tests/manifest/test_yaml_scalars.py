"""YAML scalars by the core schema of YAML 1.2."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.model import Json
from runner.manifest.scalars import resolve_plain
from tests.manifest.helpers import read_document

PLAIN: list[tuple[str, Json]] = [
    # Text that is something else in YAML 1.1.
    ("16:9", "16:9"),
    ("12:30:45", "12:30:45"),
    ("no", "no"),
    ("on", "on"),
    ("y", "y"),
    ("Yes", "Yes"),
    ("2026-11-21", "2026-11-21"),
    ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
    ("1_000", "1_000"),
    ("0b101", "0b101"),
    ("0o8", "0o8"),
    ("+0x1F", "+0x1F"),
    ("720x1280", "720x1280"),
    ("1.2.3", "1.2.3"),
    ("tRUE", "tRUE"),
    ("nULL", "nULL"),
    ("None", "None"),
    ("-", "-"),
    (".", "."),
    ("1e", "1e"),
    ("e5", "e5"),
    ("٣", "٣"),
    ("inf", "inf"),
    ("nan", "nan"),
    # Null, booleans and numbers.
    ("", None),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("0", 0),
    ("-12", -12),
    ("+12", 12),
    ("007", 7),
    ("0o17", 15),
    ("0x1F", 31),
    ("4294967295", 4294967295),
    ("99999999999999999999", 99999999999999999999),
    ("1.5", 1.5),
    ("-.5", -0.5),
    ("5.", 5.0),
    ("1e3", 1000.0),
    ("1.5E-3", 0.0015),
]


@pytest.mark.parametrize(("text", "value"), PLAIN)
def test_plain_scalars(text: str, value: Json) -> None:
    """A plain scalar has the value and type of the core schema."""
    result = resolve_plain(text)

    assert result == value
    assert type(result) is type(value)


def test_scalars_in_a_file(tmp_path: Path) -> None:
    """Every scalar of the table has its value in a file too, and is text if it is quoted."""
    rows = [f"    - {{metadata: {{plain: {text}, quoted: '{text}'}}}}" for text, _ in PLAIN if text != "-"]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(["version: 1", "jobs:", *rows]), encoding="utf-8")

    read, problems = read_document(path)

    assert problems == []
    assert read is not None
    assert [entry.value["metadata"] for entry in read[1]] == [
        {"plain": value, "quoted": text} for text, value in PLAIN if text != "-"
    ]


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999", "1" * 5000, "0x" + "f" * 2000]
)
def test_numbers_that_json_does_not_have(text: str) -> None:
    """A number that can't be sent is an error where it is written."""
    with pytest.raises(ValueError, match="quote it if it is text"):
        resolve_plain(text)
