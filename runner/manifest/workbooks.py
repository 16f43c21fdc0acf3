"""
Rows of Excel workbooks and of Parquet files, whose cells have types.

A position in them is the row and the column by number. Whole numbers with a decimal point, as Excel keeps every
number, become whole numbers; dates and times become their ISO texts; empty cells and NaN become null.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial, reduce
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from runner.core.model import Json
from runner.core.sanitize import KEY_HINT
from runner.core.units import format_size
from runner.disk import open_regular
from runner.errors import install_hint
from runner.manifest.row_readers import (
    KEY_MESSAGE,
    Row,
    RowErrorHandler,
    RowFile,
    RowFileError,
    check_names,
    column_names,
    contains_key,
    unreadable,
)

MAX_WORKBOOK_BYTES = 1_000_000_000
"""Of a workbook's parts when they are unpacked, which happens in memory."""

MAX_CELLS = 50_000_000
"""Of a sheet, from its first row and column to its last ones, empty ones too: all of them are read into memory."""

_BATCH_ROWS = 1000
_CHUNK_BYTES = 1 << 20
_PLACE = rb""" r=["']%s([0-9]{1,19})["']"""
_FAR = re.compile(_PLACE % rb"([A-Z]{2,9}(?=[0-9])|[A-Z]?(?=[0-9]{7}))")
"""Where a row or a cell is that is behind row 999,999, or a cell behind column Z; few sheets have such ones."""
_ANY = re.compile(_PLACE % rb"([A-Z]{0,9})")


class Sheet(RowFile):
    """
    A sheet of an .xlsx file. Its first row with a value names the columns. The sheet is read into memory.

    Raises:
        RowFileError: It can't be read, or its columns have no distinct names.
    """

    def __init__(self, path: Path, sheet: str | None) -> None:
        super().__init__(path)
        self._sheet = sheet
        self._first_column = 1
        line, cells = next(self._rows(), (1, []))
        self.names, self.warnings = column_names([_name(cell) for cell in cells], line)

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the rows; see `RowFile`."""
        names = self.names or ()
        rows = self._rows()
        next(rows, None)
        for line, cells in rows:
            surplus = next(
                (number for number, cell in enumerate(cells) if cell is not None and number >= len(names)),
                None,
            )
            row = dict(zip(names, cells, strict=False))
            if surplus is not None:
                message = "the cell has a value, and its column no name"
                on_error(line, self._first_column + surplus, message, "the first row names every column")
            elif _is_valid(row, line, self.place_of, on_error):
                yield line, row

    def place_of(self, row_line: int, name: str) -> tuple[int, int]:
        """Return the row and the column of a cell; see `RowFile`."""
        names = self.names or ()
        return row_line, self._first_column + names.index(name) if name in names else 0

    def _rows(self) -> Iterator[tuple[int, list[Json]]]:
        """Read the rows that have a value, each with its number."""
        try:
            with open_regular(self.path) as stream:
                _check_size(self.path, stream)
                sheet = self._open(stream)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if sheet.start is None:
            return
        # Empty rows at the start are among the rows, empty columns at the left are not.
        self._first_column = sheet.start[1] + 1
        for number, cells in enumerate(sheet.iter_rows(), start=1):
            values = [_json(cell, number, at) for at, cell in enumerate(cells, start=self._first_column)]
            if any(value is not None for value in values):
                yield number, values

    def _open(self, stream: IO[bytes]) -> Any:
        try:
            from python_calamine import CalamineError, load_workbook
        except ImportError:
            raise _absent("python-calamine", "xlsx", self.path) from None
        try:
            book = load_workbook(stream)
            names = book.sheet_names
            if self._sheet is not None and self._sheet not in names:
                message = f"sheet: '{self.path.name}' has no sheet '{self._sheet}'"
                raise RowFileError(0, message, f"it has {', '.join(names)}", key="sheet")
            return book.get_sheet_by_index(names.index(self._sheet) if self._sheet else 0)
        except CalamineError as error:
            raise RowFileError(0, f"'{self.path.name}' can't be read as a workbook: {error}") from error


class ParquetRows(RowFile):
    """
    A Parquet file, read a thousand rows at a time.

    Raises:
        RowFileError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for _ in self._batches(lambda file: self._take_names(file.schema_arrow.names)):
            break

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """Stream the rows; see `RowFile`."""
        line = 0
        for batch in self._batches(lambda _: None):
            for cells in batch.to_pylist():
                line += 1
                row = {name: _json(cell, line, at) for at, (name, cell) in enumerate(cells.items(), start=1)}
                if _is_valid(row, line, self.place_of, on_error):
                    yield line, row

    def place_of(self, row_line: int, name: str) -> tuple[int, int]:
        """Return the row and the column of a value; see `RowFile`."""
        names = self.names or ()
        return row_line, 1 + names.index(name) if name in names else 0

    def _take_names(self, names: Sequence[str]) -> None:
        check_names(tuple(names), 0)
        self.names = tuple(names)

    def _batches(self, on_open: Callable[[Any], None]) -> Iterator[Any]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise _absent("pyarrow", "parquet", self.path) from None
        try:
            with open_regular(self.path) as stream:
                file = ParquetFile(stream)
                on_open(file)
                yield from file.iter_batches(batch_size=_BATCH_ROWS)
        except ArrowException as error:
            first = str(error).partition("\n")[0]
            raise RowFileError(0, f"'{self.path.name}' can't be read as Parquet: {first}") from error
        except OSError as error:
            raise unreadable(self.path, error) from error


def _check_size(path: Path, stream: IO[bytes]) -> None:
    """Refuse a workbook that would fill the memory when it is unpacked."""
    try:
        book = ZipFile(stream)
        size = sum(part.file_size for part in book.infolist())
        cells = (
            0 if size > MAX_WORKBOOK_BYTES else max(map(partial(_cells, book), book.infolist()), default=0)
        )
    except (BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise RowFileError(0, f"'{path.name}' is not a workbook of Excel (.xlsx): {error}") from error
    if cells > MAX_CELLS:
        message = f"'{path.name}' has {cells:,} cells up to the last one"
        raise RowFileError(
            0, message, f"{MAX_CELLS:,} are the most; delete what is far below or beside the table"
        )
    if size > MAX_WORKBOOK_BYTES:
        message = f"'{path.name}' has {format_size(size)} when it is unpacked"
        raise RowFileError(0, message, f"{format_size(MAX_WORKBOOK_BYTES)} is the most; save it as CSV")
    stream.seek(0)


def _cells(book: ZipFile, part: ZipInfo) -> int:
    """Return how many cells a sheet has up to its last row and column; 0 for other parts, and for what is small."""
    if "worksheets/" not in part.filename:
        return 0
    rows, columns = _extent(book, part, _FAR)
    if max(rows, 10**6) * max(columns, 26) <= MAX_CELLS:
        return 0
    rows, columns = _extent(book, part, _ANY)
    return rows * columns


def _extent(book: ZipFile, part: ZipInfo, pattern: re.Pattern[bytes]) -> tuple[int, int]:
    """Return the last row and the last column that a sheet names in places of a pattern."""
    rows, columns, rest = 0, 0, b""
    with book.open(part) as file:
        while chunk := file.read(_CHUNK_BYTES):
            text = rest + chunk
            for name, number in set(pattern.findall(text)):
                rows = max(rows, int(number))
                columns = max(columns, reduce(lambda total, letter: total * 26 + letter - 64, name, 0))
            rest = text[-64:]
    return rows, columns


def _is_valid(
    row: dict[str, Json],
    line: int,
    place_of: Callable[[int, str], tuple[int, int]],
    on_error: RowErrorHandler,
) -> bool:
    for name, value in row.items():
        if isinstance(value, str | dict | list) and contains_key(value):
            on_error(line, place_of(line, name)[1], KEY_MESSAGE, KEY_HINT)
            return False
    return True


def _name(cell: Json) -> str:
    return "" if cell is None else str(cell)


def _json(value: Any, row: int, column: int) -> Json:
    """
    Return the JSON value of a cell.

    Raises:
        RowFileError: It has none.
    """
    if value is None or value == "" or isinstance(value, bool | int | str):
        return None if value == "" else value
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        return int(value) if value == int(value) else float(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, list):
        return [_json(item, row, column) for item in value]
    if isinstance(value, dict):
        return {str(key): _json(item, row, column) for key, item in value.items()}
    raise RowFileError(
        row, f"the cell is of a type that JSON does not have ({type(value).__name__})", column=column
    )


def _absent(package: str, extra: str, path: Path) -> RowFileError:
    hint = f"{install_hint(extra)}; or save the table as CSV"
    return RowFileError(0, f"'{path.name}' needs {package}, which is not installed", hint)
