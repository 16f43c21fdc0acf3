"""Scalars by the core rules of YAML 1.2, and texts that look like keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.model import Json
from runner.manifest.scalars import resolve_plain
from tests.manifest.reading import everything

PLAIN: list[tuple[str, Json]] = [
    # Text that YAML 1.1 takes for something else.
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
    """A plain scalar means what the core rules say, and keeps its type."""
    found = resolve_plain(text)

    assert found == value
    assert type(found) is type(value)


def test_the_table_holds_in_a_file(tmp_path: Path) -> None:
    """Every scalar of the table, plain and quoted, comes out of a file as it comes out of the rules."""
    rows = [f"    - {{metadata: {{plain: {text}, quoted: '{text}'}}}}" for text, _ in PLAIN if text != "-"]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(["version: 1", "jobs:", *rows]), encoding="utf-8")

    read, problems = everything(path)

    assert problems == []
    assert read is not None
    assert [entry.value["metadata"] for entry in read[1]] == [
        {"plain": value, "quoted": text} for text, value in PLAIN if text != "-"
    ]


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999", "1" * 5000, "0x" + "f" * 2000]
)
def test_numbers_that_json_has_not(text: str) -> None:
    """What could not be sent is refused where it is written."""
    with pytest.raises(ValueError, match="quote it if it is text"):
        resolve_plain(text)
