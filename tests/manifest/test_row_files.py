"""Row files as spreadsheets and scripts save them, and with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.model import Json
from runner.manifest.row_files import open_row_files
from runner.manifest.row_readers import RowFileError

KEY = "sk-" + "a1B2c3D4" * 6


def rows_of(path: Path) -> tuple[list[tuple[int, dict[str, Json]]], list[tuple[int, str]]]:
    """Read a row file: its rows with their lines, and its errors."""
    errors: list[tuple[int, str]] = []
    files = open_row_files(path.parent, path.name)
    rows = files.read(
        lambda _file: None, lambda line, _column, message, _hint: errors.append((line, message))
    )
    return list(rows), errors


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"name,seed\na,1\nb,2\n", [(2, {"name": "a", "seed": "1"}), (3, {"name": "b", "seed": "2"})]),
        ("windows.csv", b"\xef\xbb\xbfname,seed\r\na,1\r\nb,2", [(2, {"name": "a", "seed": "1"}), (3, {"name": "b", "seed": "2"})]),
        ("old_mac.csv", b"name,seed\ra,1\r", [(2, {"name": "a", "seed": "1"})]),
        ("quoted.csv", b'name\n"a, ""b""\nc"\nd\n', [(2, {"name": 'a, "b"\nc'}), (4, {"name": "d"})]),
        ("chinese.csv", "提示,seed\n小猫看天空,\n".encode(), [(2, {"提示": "小猫看天空", "seed": None})]),
        ("blank.csv", b"name\n\na\n\n", [(3, {"name": "a"})]),
        ("spaces.csv", b" name , seed\n a ,1\n", [(2, {"name": " a ", "seed": "1"})]),
        ("a.tsv", b"name\tprompt\na\tone, two\n", [(2, {"name": "a", "prompt": "one, two"})]),
        ("UPPER.CSV", b"name\na\n", [(2, {"name": "a"})]),
        ("a.jsonl", b'\xef\xbb\xbf{"seed": 1, "tags": ["x"]}\r\n\n{"seed": null}', [(1, {"seed": 1, "tags": ["x"]}), (3, {"seed": None})]),
        ("header.csv", b"name\n", []),
        ("empty.csv", b"", []),
        ("empty.jsonl", b"\n", []),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, content: bytes, expected: list[tuple[int, dict[str, Json]]]) -> None:
    """Files of spreadsheets and scripts are read, each row with the line where it begins."""
    (tmp_path / name).write_bytes(content)

    assert (expected, []) == rows_of(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"name,seed\na,1\nb\nc,2,3\nd,4\n", [(3, "the row has 1 cell, the file 2 columns"), (4, "the row has 3 cells, the file 2 columns")]),
        ("key.csv", f"name\n{KEY}\n".encode(), [(2, "this looks like an API key, which does not belong in a row")]),
        ("a.jsonl", b'{"a": 1}\n[1]\n{"a" 1}\n\xff\n', [(2, "the line is JSON, but not an object in braces"), (3, "the line is not JSON: Expecting ':' delimiter"), (4, "the line is not UTF-8")]),
        ("nan.jsonl", b'{"a": NaN}\n', [(1, "the line has a number or a character that JSON does not have")]),
        ("deep.jsonl", b'{"a":' + b"[" * 100_000, [(1, "nested more than 64 levels deep")]),
        *[
            ("deep.jsonl", b'{"a":' + b"[" * depth + b"]" * depth + b"}", [(1, "nested more than 64 levels deep")])
            for depth in (64, 400, 2_000, 100_000)
        ],
        ("not_too_deep.jsonl", b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", []),
        ("key.jsonl", f'{{"a": {{"b": ["{KEY}"]}}}}\n'.encode(), [(1, "this looks like an API key, which does not belong in a row")]),
    ],
)  # fmt: skip
def test_invalid_rows(tmp_path: Path, name: str, content: bytes, expected: list[tuple[int, str]]) -> None:
    """An invalid row is reported with its line, the others are read, and a key is never shown."""
    (tmp_path / name).write_bytes(content)

    assert expected == rows_of(tmp_path / name)[1]


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.csv", b"name,name\n", 1, "two columns are named 'name'"),
        ("unnamed.csv", b"name,,seed\n", 1, "column 2 has no name"),
        ("nul.csv", b"name\na\n\0b\n", 3, "the line has a NUL character"),
        ("latin1.csv", b"name\na\nb\ncaf\xe9\n", 4, "the line is not UTF-8"),
        ("utf16.csv", "name\na\n".encode("utf-16-le"), 1, "the line has a NUL character"),
        (
            "open_quote.csv",
            b'name\na\n"b\nc\n',
            3,
            "cell 1 of the row that begins on line 3 can't be read (unexpected end of data)",
        ),
        (
            "bad_quote.csv",
            b'name\n"a"b\n',
            2,
            "cell 1 of the row that begins on line 2 can't be read (',' expected after '\"')",
        ),
        ("rows.ods", b"PK", 0, "'rows.ods' does not have the suffix of a row file"),
        ("missing.csv", None, 0, "'missing.csv' can't be read: No such file or directory"),
        ("missing.jsonl", None, 0, "'missing.jsonl' can't be read: No such file or directory"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, line: int, message: str
) -> None:
    """A file that can't be read to its end is an error with its place, and not half of its rows."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(RowFileError) as caught:
        rows_of(tmp_path / name)

    assert (line, message) == (caught.value.line, caught.value.message)


def test_a_folder_is_not_a_row_file(tmp_path: Path) -> None:
    """A file that can't be opened has the operating system's error."""
    (tmp_path / "rows.csv").mkdir()

    with pytest.raises(RowFileError, match="can't be read: Is a directory"):
        open_row_files(tmp_path, "rows.csv")


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2, max_size=2
        ),
        max_size=5,
    )
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]) -> None:
    """Any text in a cell is read as it was saved; an empty cell is null, and a row of them is skipped."""
    import csv

    path = tmp_path_factory.mktemp("rows") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["x", "y"], *table])

    expected = [{"x": x or None, "y": y or None} for x, y in table if x or y]
    assert expected == [row for _, row in rows_of(path)[0]]
