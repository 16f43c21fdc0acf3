"""
Row files: a job for each row of a CSV, TSV or JSONL file, read as a stream.

Tables are read as spreadsheets save them: UTF-8 with or without a byte order
mark, any line ending, quoted cells that hold separators and line breaks. Their
first row names the columns. An empty cell is the empty text; blank lines are
passed over; a row with too many or too few cells is an error.

A line of a JSONL file is an object, whose values keep their types.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from runner.core.spec import Json
from runner.core.value import frozen
from runner.manifest.lines import (
    JSONL_SUFFIXES,
    KEY_HINT,
    KEY_MESSAGE,
    Complain,
    FileUnusable,
    read_objects,
    unreadable,
)
from runner.manifest.scalars import SHORTEST_KEY, looks_like_key

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MAX_CELL_CHARS = 50_000_000
"""A longer cell is a quote that was never closed; the largest picture that a model takes still fits as base64."""

Row = tuple[int, dict[str, Json]]
"""The line that a row begins on, from 1, and its values by name."""


@frozen
class RowFile:
    """
    A row file whose head was read.

    Attributes:
        names: Of the columns; None where each row brings its own.
    """

    path: Path
    names: tuple[str, ...] | None

    def rows(self, complain: Complain) -> Iterator[Row]:
        """
        Stream the rows. What is wrong with one is complained of, and the row left out.

        Raises:
            FileUnusable: The file can't be read to its end.
        """
        if self.names is None:
            return read_objects(self.path, complain)
        return _read_table(self.path, self.names, complain)


def open_rows(path: Path) -> RowFile:
    """
    Look at the head of a row file. An empty file is a table without columns.

    Raises:
        FileUnusable: It is missing or unreadable, its suffix is not known, or its columns can't be told apart.
    """
    suffix = path.suffix.lower()
    if suffix not in _SEPARATORS and suffix not in JSONL_SUFFIXES:
        message = f"'{path.name}' is not a row file by its suffix"
        raise FileUnusable(0, message, "row files end in .csv, .tsv, .jsonl or .ndjson")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if suffix in JSONL_SUFFIXES:
                return RowFile(path, None)
            line, cells = next(_records(path, stream), (1, []))
    except OSError as error:
        raise unreadable(path, error) from error
    return RowFile(path, _column_names(line, cells))


def _column_names(line: int, cells: list[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    for place, name in enumerate(names, start=1):
        if not name:
            raise FileUnusable(line, f"column {place} has no name", "the first row names every column")
        if name in names[: place - 1]:
            raise FileUnusable(line, f"two columns are named '{name}'", "give each column a name of its own")
    return names


def _read_table(path: Path, names: tuple[str, ...], complain: Complain) -> Iterator[Row]:
    width = len(names)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            records = _records(path, stream)
            next(records, None)
            for line, cells in records:
                if len(cells) != width:
                    message = (
                        f"the row has {_counted(len(cells), 'cell')}, the file {_counted(width, 'column')}"
                    )
                    complain(line, message, "put cells that hold separators or line breaks in double quotes")
                elif any(len(cell) >= SHORTEST_KEY and looks_like_key(cell) for cell in cells):
                    complain(line, KEY_MESSAGE, KEY_HINT)
                else:
                    yield line, dict(zip(names, cells, strict=True))
    except OSError as error:
        raise unreadable(path, error) from error


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _records(path: Path, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Read the records of a table, each with the line it begins on; blank lines are none."""
    # Rows in JSONL have no use for it.
    import csv

    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.reader(_checked_lines(stream), delimiter=_SEPARATORS[path.suffix.lower()], strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "look for a double quote that is not closed, or not doubled inside a quoted cell"
        raise FileUnusable(line, f"the row that begins here can't be read ({error})", hint) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _checked_lines(stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise FileUnusable(number, "the line holds a NUL character", "save the file as text in UTF-8")
        yield line


def _not_utf8(path: Path) -> FileUnusable:
    """Find the line that is not UTF-8, since the decoder reads ahead of the rows."""
    hint = "save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return FileUnusable(number, "the line is not UTF-8", hint)
    return FileUnusable(0, "the file is not UTF-8", hint)
