"""
The row files of an entry: a job for each row of the files that ``from`` names, one after the other, read as a stream.

The suffix tells the kind: text tables (.csv, .tsv), a prompt a line (.txt), an object a line or an array of objects
(.jsonl, .ndjson, .json), Excel workbooks (.xlsx) and Parquet files (.parquet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.where import Condition, parse_condition
from runner.manifest.json_rows import JSONL_SUFFIXES, JsonRows
from runner.manifest.row_readers import CellOptions, Row, RowErrorHandler, RowFile, RowFileError

_SUFFIXES = (".csv", ".tsv", ".txt", *JSONL_SUFFIXES, ".json", ".xlsx", ".parquet")
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_WILDCARDS = frozenset("*?[")


class RowFiles(Struct, frozen=True):
    """
    The row files of one entry, whose beginnings were read.

    Attributes:
        names: Of the columns of all files; None if rows have names of their own.
        conditions: What rows must meet.
    """

    files: Sequence[RowFile]
    names: tuple[str, ...] | None
    conditions: Sequence[Condition] = ()

    def read(self, on_file: Callable[[RowFile], None], on_error: RowErrorHandler) -> Iterator[Row]:
        """
        Stream the rows of all files. An invalid one goes to ``on_error``, and is left out.

        Args:
            on_file: Called with each file before its rows.

        Raises:
            RowFileError: A file can't be read to its end.
        """
        for file in self.files:
            on_file(file)
            rows = file.read(on_error)
            for condition in self.conditions:
                rows = _matching(rows, condition)
            try:
                yield from rows
            except RowFileError as error:
                error.path = file.path
                raise

    @property
    def note(self) -> str:
        """How the columns were told apart, for a message about one that is missing."""
        return "; ".join(file.note for file in self.files[:1] if file.note)


def open_row_files(
    folder: Path,
    names: str | Sequence[str],
    *,
    csv: Mapping[str, Json] | None = None,
    sheet: str | None = None,
    where: str | Sequence[str] = (),
) -> RowFiles:
    """
    Read the beginnings of row files.

    Args:
        folder: The paths are relative to it.
        names: Paths and patterns such as ``prompts/*.csv``; a file that several of them name is read once.
        csv: As in the manifest: how text tables are written.
        sheet: Of a workbook; None for the first one.
        where: Conditions on the values of rows; those that do not meet them all are left out.

    Raises:
        RowFileError: A file is missing or unreadable, its suffix is unknown, or its columns have no distinct names.
    """
    try:
        conditions = tuple(map(parse_condition, _listed(where)))
    except ValueError as error:
        raise RowFileError(0, f"where: {error}", key="where") from None
    options = _cell_options(csv or {})
    paths = dict.fromkeys(path for name in _listed(names) for path in _find(folder, name))
    files = []
    for path in paths:
        try:
            files.append(_open(path, options, sheet))
        except RowFileError as error:
            error.path = path if error.key == "from" else None
            raise
    if csv and not any(path.suffix.lower() in _TEXT_SUFFIXES for path in paths):
        raise RowFileError(0, f"csv: no file of this entry ends in {', '.join(_TEXT_SUFFIXES)}", key="csv")
    if sheet is not None and not any(path.suffix.lower() == ".xlsx" for path in paths):
        raise RowFileError(0, "sheet: no file of this entry ends in .xlsx", key="sheet")
    columns = [file.names for file in files]
    if None in columns:
        return RowFiles(files, None, conditions)
    return RowFiles(
        files, tuple(dict.fromkeys(name for found in columns for name in found or ())), conditions
    )


def _matching(rows: Iterator[Row], condition: Condition) -> Iterator[Row]:
    return (row for row in rows if condition.matches_values(row[1]))


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _find(folder: Path, name: str) -> list[Path]:
    """Return the files that a path or a pattern names, sorted."""
    path = folder / name
    if _WILDCARDS.isdisjoint(name) or path.exists():
        return [path]
    # Few manifests have patterns.
    from glob import glob

    found = sorted(glob(name, root_dir=folder, recursive=True))
    if not found:
        hint = f"patterns are relative to the manifest's folder: {folder}"
        raise RowFileError(0, f"no file matches '{name}'", hint)
    return [folder / file for file in found]


def _open(path: Path, options: CellOptions, sheet: str | None) -> RowFile:
    suffix = path.suffix.lower()
    if suffix in _TEXT_SUFFIXES:
        # What reads a kind of file is imported for files of that kind.
        from runner.manifest.text_tables import PromptLines, TextTable

        return PromptLines(path, options) if suffix == ".txt" else TextTable(path, options)
    if suffix in JSONL_SUFFIXES or suffix == ".json":
        return JsonRows(path)
    if suffix in (".xlsx", ".parquet"):
        from runner.manifest.workbooks import ParquetRows, Sheet

        return Sheet(path, sheet) if suffix == ".xlsx" else ParquetRows(path)
    message = f"'{path.name}' does not have the suffix of a row file"
    raise RowFileError(0, message, f"row files end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")


def _cell_options(csv: Mapping[str, Json]) -> CellOptions:
    words = {""}
    for word in csv.get("empty", ()):
        # An unquoted null in YAML is the word that the table has.
        words.update(("null", "Null", "NULL") if word is None else (str(word),))
    return CellOptions(csv.get("delimiter"), csv.get("quote"), csv.get("encoding"), frozenset(words))
