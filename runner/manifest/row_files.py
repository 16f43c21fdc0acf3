"""
Row files: a job for each row of a CSV, TSV or JSONL file, read as a stream.

Tables are read as spreadsheets save them: UTF-8 with or without a byte order mark, any
line ending, quoted cells with separators and line breaks. Their first row names the
columns. An empty cell is the empty text; blank lines are skipped; a row with too many
or too few cells is an error.

A line of a JSONL file is an object, whose values keep their types.
"""

from __future__ import annotations

import csv
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from runner import jsontext
from runner.core.model import Json
from runner.core.sanitize import KEY_HINT, MIN_KEY_CHARS, looks_like_key, may_contain_key
from runner.core.units import format_count
from runner.input_files import MAX_LINE, LineTooLong, lines_of, open_regular
from runner.manifest.yaml_parser import MAX_DEPTH, TOO_DEEP

JSONL_SUFFIXES = (".jsonl", ".ndjson")
KEY_MESSAGE = "this looks like an API key, which does not belong in a row"

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MAX_COLUMNS = 10_000
"""A table with more columns is probably one that was turned by 90 degrees."""

Row = tuple[int, dict[str, Json]]
"""The line where a row begins, from 1, and its values by name."""

RowErrorHandler = Callable[[int, str, str | None], None]
"""Takes a line (from 1; 0 for the file as a whole), what is wrong there, and a hint."""


class RowFileError(Exception):
    """
    A row file can't be read any further.

    Attributes:
        line: Where the error is, from 1; 0 if it concerns the file as a whole.
    """

    def __init__(self, line: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


class RowFile(Struct, frozen=True):
    """
    A row file whose beginning was read.

    Attributes:
        names: Of the columns; None if each row has names of its own.
    """

    path: Path
    names: tuple[str, ...] | None

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """
        Stream the rows. An invalid one goes to ``on_error``, and is left out.

        Raises:
            RowFileError: The file can't be read to its end.
        """
        if self.names is None:
            return read_jsonl(self.path, on_error)
        return _read_table(self.path, self.names, on_error)


def open_row_file(path: Path) -> RowFile:
    """
    Read the beginning of a row file. An empty file is a table without columns.

    Raises:
        RowFileError: It is missing or unreadable, its suffix is unknown, or its columns have no distinct names.
    """
    suffix = path.suffix.lower()
    if suffix not in _SEPARATORS and suffix not in JSONL_SUFFIXES:
        message = f"'{path.name}' does not have the suffix of a row file"
        raise RowFileError(0, message, "row files end in .csv, .tsv, .jsonl or .ndjson")
    try:
        with _open_table(path) as stream:
            if suffix in JSONL_SUFFIXES:
                return RowFile(path, None)
            line, cells = next(_records(path, stream), (1, []))
    except OSError as error:
        raise _unreadable(path, error) from error
    return RowFile(path, _column_names(line, cells))


def _column_names(line: int, cells: list[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    if len(names) > _MAX_COLUMNS:
        hint = "put a job on each row, and the names of its values in the first row"
        raise RowFileError(line, f"the table has {len(names):,} columns; {_MAX_COLUMNS:,} are allowed", hint)
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name:
            raise RowFileError(line, f"column {number} has no name", "the first row names every column")
        if name in seen:
            raise RowFileError(line, f"two columns are named '{name}'", "give each column a name of its own")
        seen.add(name)
    return names


def _read_table(path: Path, names: tuple[str, ...], on_error: RowErrorHandler) -> Iterator[Row]:
    width = len(names)
    try:
        with _open_table(path) as stream:
            records = _records(path, stream)
            next(records, None)
            for line, cells in records:
                if len(cells) != width:
                    expected = format_count(width, "column")
                    message = f"the row has {format_count(len(cells), 'cell')}, the file {expected}"
                    on_error(line, message, "put cells with separators or line breaks in double quotes")
                elif any(len(cell) >= MIN_KEY_CHARS and looks_like_key(cell) for cell in cells):
                    on_error(line, KEY_MESSAGE, KEY_HINT)
                else:
                    yield line, dict(zip(names, cells, strict=True))
    except OSError as error:
        raise _unreadable(path, error) from error


def _records(path: Path, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Read the records of a table, each with the line where it begins; blank lines are skipped."""
    # A longer cell is a quote that was never closed.
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(_checked_lines(stream), delimiter=_SEPARATORS[path.suffix.lower()], strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "look for a double quote that is not closed, or not doubled inside a quoted cell"
        raise RowFileError(line, f"the row that begins here can't be read ({error})", hint) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except LineTooLong as error:
        raise RowFileError(error.line, str(error)) from None


def _checked_lines(stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(lines_of(stream), start=1):
        if "\0" in line:
            raise RowFileError(number, "the line has a NUL character", "save the file as UTF-8 text")
        yield line


def _open_table(path: Path) -> TextIO:
    return TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="")


def _not_utf8(path: Path) -> RowFileError:
    """Find the line that is not UTF-8, since the decoder reads ahead of the rows."""
    hint = "save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
    with open_regular(path) as stream:
        for number, line in enumerate(lines_of(stream), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return RowFileError(number, "the line is not UTF-8", hint)
    return RowFileError(0, "the file is not UTF-8", hint)


def read_jsonl(path: Path, on_error: RowErrorHandler) -> Iterator[Row]:
    """
    Stream the objects of a JSONL file, each with its line. Blank lines are skipped.

    An invalid line goes to ``on_error``, and is left out.

    Raises:
        RowFileError: The file is missing or can't be read to its end.
    """
    loads = jsontext.loads
    try:
        with open_regular(path) as stream:
            if stream.read(len(BOM_UTF8)) != BOM_UTF8:
                stream.seek(0)
            for number, raw in enumerate(lines_of(stream), start=1):
                try:
                    line = raw.decode()
                    value = loads(line)
                except (ValueError, RecursionError):
                    if raw.strip():
                        on_error(number, _json_error(raw), None)
                    continue
                if type(value) is not dict:
                    on_error(number, "the line is JSON, but not an object in braces", None)
                elif line.count("{") + line.count("[") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
                    on_error(number, TOO_DEEP, None)
                elif may_contain_key(line) and _contains_key(value):
                    on_error(number, KEY_MESSAGE, KEY_HINT)
                else:
                    yield number, value
    except OSError as error:
        raise _unreadable(path, error) from error
    except LineTooLong as error:
        raise RowFileError(error.line, str(error)) from None


def _unreadable(path: Path, error: OSError) -> RowFileError:
    return RowFileError(0, f"'{path.name}' can't be read: {error.strerror or error}")


def _json_error(raw: bytes) -> str:
    """Describe an invalid line by the standard library's error, which is the same for every JSON library."""
    try:
        is_too_deep = _is_deeper(json.loads(raw.decode().rstrip()), MAX_DEPTH)
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    except json.JSONDecodeError as error:
        return f"the line is not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        is_too_deep = True
    # Each JSON library has a depth limit of its own.
    return TOO_DEEP if is_too_deep else "the line has a number or a character that JSON does not have"


def _is_deeper(value: Json, levels: int) -> bool:
    """
    Return whether collections are nested more than so many levels deep.

    >>> _is_deeper({"a": [1]}, 2), _is_deeper({"a": [[]]}, 2)
    (False, True)
    """
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)


def _contains_key(value: Json) -> bool:
    if isinstance(value, str):
        return looks_like_key(value)
    if isinstance(value, dict):
        return any(_contains_key(item) for item in value.values())
    return isinstance(value, list) and any(_contains_key(item) for item in value)
