"""
Files with a job in each row: those that ``from`` of an entry names, and batch files. They are read as a stream.

The suffix determines the kind: text tables (.csv, .tsv), a prompt a line (.txt), an object a line or an array of objects
(.jsonl, .ndjson, .json), Excel workbooks (.xlsx) and Parquet files (.parquet).

A batch file is JSONL in the form of other batch APIs, accepted wherever a manifest is. A line is ``{"custom_id": …,
"method": "POST", "url": "/v1/videos", "body": {…}}``. There are no settings, defaults or placeholders: a body is sent as
it is written. ``metadata`` beside it is the job's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.core.where import Condition, parse_condition
from runner.manifest.document import ProblemHandler
from runner.manifest.json_rows import JSONL_SUFFIXES, JsonRows, read_jsonl
from runner.manifest.row_readers import CellOptions, Row, RowErrorHandler, RowFile, RowFileError
from runner.manifest.unchecked_job import EntrySource, UncheckedJob
from runner.schema.wording import did_you_mean, format_value

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
        """How the columns were separated, for a message about one that is missing."""
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


_ROUTE = "/v1/videos"
_KEYS = ("custom_id", "method", "url", "body")
_NOTHING: Mapping[str, Json] = {}


class BatchFile:
    """
    The jobs of a batch file.

    Attributes:
        base_url: Of the gateway, if the file's first line names one; every line must then name the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._url = self._read_first_url()
        self.base_url = self._url.removesuffix(_ROUTE) or None

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Stream the jobs. What is wrong with a line is reported, and the line left out."""
        source = EntrySource(None, row_file=str(self.path))
        is_empty = True

        def on_error(line: int, column: int, message: str, hint: str | None) -> None:
            nonlocal is_empty
            is_empty = False
            source.report_row(line, Finding((), message, hint), report, column=column)

        url = self._url
        try:
            for line, row in read_jsonl(self.path, on_error):
                is_empty = False
                if (
                    len(row) == len(_KEYS)
                    and row.get("url") == url
                    and row.get("method") == "POST"
                    and type(row.get("body")) is dict
                    and row.get("custom_id") is not None
                ):
                    yield UncheckedJob(source, row["custom_id"], row["body"], _NOTHING, _NOTHING, None, line)
                    continue
                findings = list(_findings(row, url))
                for finding in findings:
                    source.report_row(line, finding, report, row.get("custom_id"))
                if all(finding.severity is Severity.WARNING for finding in findings):
                    metadata = row.get("metadata") or _NOTHING
                    yield UncheckedJob(source, row["custom_id"], row["body"], metadata, _NOTHING, None, line)
        except RowFileError as error:
            is_empty = False
            source.report_once(Finding((), error.message, error.hint), report)
        if is_empty:
            source.report_once(Finding((), "the batch file has no jobs", severity=Severity.WARNING), report)

    def _read_first_url(self) -> str:
        """Return the address on the first readable line; if it is none, the route."""
        try:
            for _, row in read_jsonl(self.path, lambda *_: None):
                url = row.get("url")
                return url if isinstance(url, str) and _is_address(url) else _ROUTE
        except RowFileError:
            pass
        return _ROUTE


def _is_address(url: str) -> bool:
    return url == _ROUTE or (url.startswith(("http://", "https://")) and url.endswith(_ROUTE))


def _findings(row: Mapping[str, Json], url: str) -> Iterator[Finding]:
    for key in _KEYS:
        if key not in row:
            yield Finding((), f"missing key '{key}'", f"a line of a batch file has {', '.join(_KEYS)}")
    for key in row:
        if key in _KEYS or key == "metadata":
            continue
        if guess := did_you_mean(key, (*_KEYS, "metadata")):
            yield Finding((key,), f"unknown key {format_value(key)}", guess)
        else:
            message = f"unknown key {format_value(key)}: it is not sent"
            yield Finding((key,), message, "what belongs to the request is in its body", Severity.WARNING)
    if row.get("custom_id", "") is None:
        message = "custom_id: null names no job; it is named by its request"
        yield Finding(("custom_id",), message, severity=Severity.WARNING)
    if not isinstance(row.get("metadata"), dict | None):
        yield Finding(("metadata",), "metadata: this must be an object")
    if row.get("method", "POST") != "POST":
        yield Finding(("method",), f"method: {format_value(row['method'])} is not 'POST'")
    if row.get("url", url) != url:
        yield _url_finding(row["url"], url)
    if type(row.get("body", _NOTHING)) is not dict and "body" in row:
        yield Finding(("body",), "body: the request must be an object")


def _url_finding(value: Json, expected: str) -> Finding:
    if isinstance(value, str) and _is_address(value):
        message = f"url: {format_value(value)} differs from {format_value(expected)} on the first line"
        return Finding(("url",), message, "all lines of a file use one gateway")
    return Finding(("url",), f"url: {format_value(value)} is not supported", f"write {_ROUTE}")
