"""
Text tables: CSV and TSV files as spreadsheets, databases and scripts save them, and a prompt a line.

The first row names the columns. The separator is the one of `SEPARATORS` that the first row has most of,
unless Excel's line ``sep=;`` or the manifest names it. An empty cell is null; empty rows, and separators at the end
of a row, are skipped. If the first line begins with ``# ``, all lines that begin with ``#`` are comments.

In a .tsv file a quote belongs to the text, as databases write it, unless it encloses a whole cell within its line.
"""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, lookup
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from runner.core.model import Json
from runner.core.sanitize import KEY_HINT, MIN_KEY_CHARS, looks_like_key
from runner.core.units import format_count
from runner.disk import MAX_LINE, LineTooLong, lines_of, open_regular
from runner.manifest.row_readers import (
    KEY_MESSAGE,
    CellOptions,
    Row,
    RowErrorHandler,
    RowFile,
    RowFileError,
    column_names,
    unreadable,
)

SEPARATORS = ",;\t|"
LINE_NAME = "line"
"""The name of the only value of a .txt file's row."""

_BREAKS = "\r\n"
_EXCEL_LINE = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class TextTable(RowFile):
    """
    A table in a text file.

    Raises:
        RowFileError: It can't be read, or its columns have no distinct names.
    """

    def __init__(self, path: Path, options: CellOptions) -> None:
        super().__init__(path)
        self._options = options
        self._quote = options.quote
        self._is_literal = path.suffix.lower() == ".tsv" and options.quote is None
        self._delimiter = options.delimiter or ("\t" if self._is_literal else ",")
        self._lines: _Lines | None = None
        with _readable(path, options) as stream:
            lines = _Lines(stream)
            self._skips_first = self._find_delimiter(lines)
            line, cells = next(self._records(lines), (1, None))
        # An empty file may have any columns: it has no rows.
        self.names, self.warnings = (None, ()) if cells is None else column_names(cells, line)
        self.note = f"{path.name} is read with {_shown(self._delimiter)} between its columns"

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the rows; see `RowFile`."""
        names, empty = self.names or (), self._options.empty
        width = len(names)
        with _readable(self.path, self._options) as stream:
            self._lines = lines = _Lines(stream)
            if self._skips_first:
                lines.skip()
            records = self._records(lines)
            next(records, None)
            for line, cells in records:
                if len(cells) > width and not any(cells[width:]):
                    del cells[width:]
                if len(cells) != width:
                    message = f"the row has {format_count(len(cells), 'cell')}, the file {format_count(width, 'column')}"
                    on_error(line, self._column(lines, width), message, self._width_hint())
                elif any([looks_like_key(cell) for cell in cells if len(cell) >= MIN_KEY_CHARS]):  # noqa: C419 - takes less time
                    on_error(line, 0, KEY_MESSAGE, KEY_HINT)
                else:
                    row: dict[str, Json] = dict(zip(names, cells, strict=True))
                    if not empty.isdisjoint(cells):
                        row = {name: None if cell in empty else cell for name, cell in row.items()}
                    yield line, row

    def place_of(self, row_line: int, name: str) -> tuple[int, int]:
        """Return the line and the column of a cell; see `RowFile`."""
        names, lines = self.names or (), self._lines
        if lines is None or lines.first != row_line or name not in names:
            return row_line, 0
        starts = self._cell_starts(lines)
        number = names.index(name)
        return lines.place(starts[number]) if number < len(starts) else (row_line, 0)

    def _find_delimiter(self, lines: _Lines) -> bool:
        """Find out how cells are separated; return whether the first line says it, and is not a row."""
        first = lines.begin_row() or ""
        excel = _EXCEL_LINE.fullmatch(first)
        if excel is not None:
            lines.skip()
            self._delimiter = self._options.delimiter or excel[1]
        elif self._options.delimiter is None:
            header = re.sub('"[^"]*"', "", first)
            most = max(SEPARATORS, key=header.count)
            if most in header and not (self._is_literal and "\t" in header):
                self._delimiter = most
        self._is_literal = self._is_literal and self._delimiter == "\t"
        return excel is not None

    def _records(self, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
        """Read the records, each with the line where it begins; those without text are skipped."""
        if self._is_literal:
            while (text := lines.begin_row()) is not None:
                lines.skip()
                cells = [_unquoted(cell) for cell in text.rstrip("\r\n").split("\t")]
                if any(cells):
                    yield lines.first, cells
            return
        # A longer cell is a quote that was never closed.
        csv.field_size_limit(MAX_LINE)
        plain, spaced = self._reader(lines), self._reader(lines, skipinitialspace=True)
        quote = self._quote or '"'
        blank_and_quote = f" {quote}"
        while (text := lines.begin_row()) is not None:
            if quote not in text:
                # Most rows have no quotes, and are split in less time than the reader takes for them.
                lines.skip()
                cells = text.rstrip("\r\n").split(self._delimiter)
                if any(cells):
                    yield lines.first, cells
                continue
            # A blank between a separator and a quote is no part of the cell.
            reader = spaced if blank_and_quote in text else plain
            try:
                cells = next(reader)
            except csv.Error as error:
                raise self._bad_row(lines, error) from error
            if any(cells):
                yield lines.first, cells

    def _reader(self, lines: _Lines, *, skipinitialspace: bool = False) -> Iterator[list[str]]:
        if self._quote == "":
            return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(
            lines,
            delimiter=self._delimiter,
            quotechar=self._quote or '"',
            strict=True,
            skipinitialspace=skipinitialspace,
        )

    def _bad_row(self, lines: _Lines, error: csv.Error) -> RowFileError:
        starts = self._cell_starts(lines)
        cell = len(starts)
        line, column = lines.place(starts[-1])
        hint = "look for a quote that is not closed, or not doubled inside a quoted cell"
        if self._quote is None:
            hint += "; if quotes are part of the text: csv: {quote: ''}"
        message = f"cell {cell} of the row that begins on line {lines.first} can't be read ({error})"
        return RowFileError(line, message, hint, column=column)

    def _width_hint(self) -> str:
        if self._is_literal:
            return "if cells with tabs or line breaks are in double quotes: csv: {quote: '\"'}"
        return "put cells with separators or line breaks in double quotes"

    def _column(self, lines: _Lines, number: int) -> int:
        """Return the column of a cell (from 0) on the line where the row begins; 0 if it is not there."""
        starts = self._cell_starts(lines)
        line, column = lines.place(starts[number]) if number < len(starts) else (0, 0)
        return column if line == lines.first else 0

    def _cell_starts(self, lines: _Lines) -> list[int]:
        """List where the cells of the row that was read last begin in its text, up to one that can't be read."""
        text = "".join(lines.row).rstrip("\r\n")
        quote = "" if self._is_literal else re.escape('"' if self._quote is None else self._quote)
        delimiter = re.escape(self._delimiter)
        cell = f"[^{delimiter}]*"
        if quote:
            cell = f" *{quote}[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+{quote}|(?! *{quote}){cell}"
        pattern = re.compile(f"(?:{cell})(?:{delimiter}|$)")
        starts, at = [0], 0
        while (found := pattern.match(text, at)) is not None and found.end() < len(text):
            at = found.end()
            starts.append(at)
        return starts


class PromptLines(RowFile):
    """A text file with a prompt on each line; blank lines are skipped."""

    names = (LINE_NAME,)

    def __init__(self, path: Path, options: CellOptions) -> None:
        super().__init__(path)
        self._options = options
        self.note = f"a row of {path.name} is a line of text"
        with _readable(path, options):
            pass

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the lines; see `RowFile`."""
        with _readable(self.path, self._options) as stream:
            lines = _Lines(stream, has_comments=False)
            while (text := lines.begin_row()) is not None:
                lines.skip()
                prompt = text.strip()
                if looks_like_key(prompt):
                    on_error(lines.first, 0, KEY_MESSAGE, KEY_HINT)
                elif prompt:
                    yield lines.first, {LINE_NAME: prompt}


class _Lines:
    """
    The lines of a table, and those of the row that is being read.

    Attributes:
        first: The number of the row's first line.
        row: The row's lines.
    """

    def __init__(self, stream: TextIO, *, has_comments: bool = True) -> None:
        self.first = 0
        self.row: list[str] = []
        self._number = 0
        self._next = _checked_lines(stream)
        self._ahead: str | None = None
        self._has_comments: bool | None = None if has_comments else False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._ahead = self._ahead, None
        if line is None:
            line = next(self._next)
            self._number += 1
            self.row.append(line)
        return line

    def begin_row(self) -> str | None:
        """Return the first line of the next row without reading it; None at the end."""
        while True:
            line = self._ahead
            if line is None:
                line = self._ahead = next(self._next, None)
                if line is None:
                    self.row = []
                    return None
                self._number += 1
            if self._has_comments is None:
                self._has_comments = line.startswith("# ")
            if line[:1] not in _BREAKS and not (self._has_comments and line[0] == "#"):
                self.first, self.row = self._number, [line]
                return line
            self._ahead = None

    def skip(self) -> None:
        """Read the line that `begin_row` returned."""
        if self._ahead is None:
            self.begin_row()
        self._ahead = None

    def place(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of a character of the row, from 1."""
        for number, line in enumerate(self.row):
            if offset < len(line) or number == len(self.row) - 1:
                return self.first + number, offset + 1
            offset -= len(line)
        return self.first, 0


def _checked_lines(stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(lines_of(stream), start=1):
        if "\0" in line:
            hint = "save the file as UTF-8 text, or name its encoding: csv: {encoding: utf-16-le}"
            raise RowFileError(number, "the line has a NUL character", hint, column=line.index("\0") + 1)
        yield line.removeprefix("\ufeff") if number == 1 else line


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell


def _shown(delimiter: str) -> str:
    return "tabs" if delimiter == "\t" else f"'{delimiter}'"


def _open_text(path: Path, options: CellOptions, errors: str = "strict") -> TextIO:
    stream = open_regular(path)
    encoding = options.encoding
    if encoding is None:
        encoding = "utf-16" if stream.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8"
        stream.seek(0)
    try:
        # Some of Python's codecs make bytes of bytes, and are found out only here.
        return TextIOWrapper(stream, encoding=lookup(encoding).name, errors=errors, newline="")
    except LookupError:
        stream.close()
        hint = "such as utf-8, utf-16, cp1252, gbk or shift_jis"
        message = f"csv.encoding: {encoding[:40]!r} is not an encoding of text"
        raise RowFileError(0, message, hint, key="csv") from None


@contextmanager
def _readable(path: Path, options: CellOptions) -> Iterator[TextIO]:
    """Open a file, and turn whatever goes wrong while it is read into a `RowFileError`."""
    try:
        with _open_text(path, options) as stream:
            yield stream
    except UnicodeError as error:
        raise _not_decodable(path, options) from error
    except LineTooLong as error:
        raise RowFileError(error.line, str(error)) from None
    except OSError as error:
        raise unreadable(path, error) from error


def _not_decodable(path: Path, options: CellOptions) -> RowFileError:
    """Find the line that is not of the file's encoding, since the decoder reads ahead of the rows."""
    encoding = options.encoding or "UTF-8"
    hint = "save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or name its encoding: csv: {encoding: cp1252}"
    with _open_text(path, options, errors="replace") as stream:
        for number, line in enumerate(lines_of(stream), start=1):
            if "\ufffd" in line:
                column = line.index("\ufffd") + 1
                return RowFileError(number, f"the line is not {encoding}", hint, column=column)
    return RowFileError(0, f"the file is not {encoding}", hint)
