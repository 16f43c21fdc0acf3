"""What the readers of row files have in common: rows, errors with their places, and the search for keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.sanitize import looks_like_key

KEY_MESSAGE = "this looks like an API key, which does not belong in a row"

MAX_COLUMNS = 10_000
"""A table with more columns is probably one that was turned by 90 degrees."""

INDEX_NAME = "index"
"""The name of a first column without one, which is how pandas writes its index."""

Row = tuple[int, dict[str, Json]]
"""The line where a row begins, from 1, and its values by name."""

RowErrorHandler = Callable[[int, int, str, str | None], None]
"""Takes a line (from 1), a column (from 1; 0 for the whole line), what is wrong there, and a hint."""


class RowFileError(Exception):
    """
    A row file can't be read any further.

    Attributes:
        line: Where the error is, from 1; 0 if it concerns the file as a whole.
        column: From 1; 0 if it concerns the whole line.
        key: Of the entry, that the error is about if it concerns no line.
        path: The file; None if no file can be named.
    """

    def __init__(
        self, line: int, message: str, hint: str | None = None, *, column: int = 0, key: str = "from"
    ) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message
        self.hint = hint
        self.key = key
        self.path: Path | None = None


class CellOptions(Struct, frozen=True):
    """
    How the cells of a text table are written; None where it is to be found.

    Attributes:
        delimiter: One character.
        quote: One character; the empty text if quotes have no meaning.
        encoding: A name that Python knows.
        empty: Texts that mean an empty cell.
    """

    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    empty: frozenset[str] = frozenset({""})


class RowFile:
    """
    A row file whose beginning was read.

    Attributes:
        names: Of the columns; None if each row has names of its own.
        note: How the columns were separated, for a message about one that is missing; empty if it needs none.
        warnings: What is odd about the names, each with a hint, at the line of the names.
    """

    names: tuple[str, ...] | None = None
    note: str = ""
    warnings: tuple[tuple[int, str, str], ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, on_error: RowErrorHandler) -> Iterator[Row]:
        """
        Stream the rows. An invalid one goes to ``on_error``, and is left out.

        Raises:
            RowFileError: The file can't be read to its end.
        """
        raise NotImplementedError

    def place_of(self, row_line: int, name: str) -> tuple[int, int]:
        """
        Return the line and the column of a value in a row; the column is 0 if it is not known.

        Only the row that was read last is known in full.
        """
        del name
        return row_line, 0


def check_names(names: tuple[str, ...], line: int) -> None:
    """
    Make sure that every column has a name of its own.

    Raises:
        RowFileError: It has none, or there are too many columns.
    """
    if len(names) > MAX_COLUMNS:
        hint = "put a job on each row, and the names of its values in the first row"
        raise RowFileError(line, f"the table has {len(names):,} columns; {MAX_COLUMNS:,} are allowed", hint)
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name:
            raise RowFileError(line, f"column {number} has no name", "the first row names every column")
        if name in seen:
            raise RowFileError(line, f"two columns are named '{name}'", "give each column a name of its own")
        seen.add(name)


def column_names(cells: list[str], line: int) -> tuple[tuple[str, ...], tuple[tuple[int, str, str], ...]]:
    """
    Return the names in the first row, and warnings about them. Trailing cells without text are not columns.

    Raises:
        RowFileError: As for `check_names`.
    """
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    warnings: tuple[tuple[int, str, str], ...] = ()
    if len(names) > 1 and not names[0] and INDEX_NAME not in names:
        names[0] = INDEX_NAME
        message = f"the first column has no name, as pandas writes its index; it is read as '{INDEX_NAME}'"
        warnings = ((line, message, "leave it out with to_csv(..., index=False), or give it a name"),)
    check_names(tuple(names), line)
    return tuple(names), warnings


def unreadable(path: Path, error: OSError) -> RowFileError:
    """Return the error of a file that the operating system does not let be read."""
    return RowFileError(0, f"'{path.name}' can't be read: {error.strerror or error}")


def contains_key(value: Json) -> bool:
    """Return whether a text in a value looks like an API key."""
    if isinstance(value, str):
        return looks_like_key(value)
    if isinstance(value, dict):
        return any(contains_key(item) for item in value.values())
    return isinstance(value, list) and any(contains_key(item) for item in value)
