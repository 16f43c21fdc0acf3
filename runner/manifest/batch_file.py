"""
Batch files: JSONL in the form of other batch APIs, accepted wherever a manifest is.

A line is ``{"custom_id": …, "method": "POST", "url": "/v1/videos", "body": {…}}``. There
are no settings, defaults or placeholders: a body is sent as it is written. ``metadata`` beside it is the job's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.input_files import open_regular
from runner.manifest.document import ProblemHandler
from runner.manifest.json_rows import JSONL_SUFFIXES, read_jsonl
from runner.manifest.row_readers import RowFileError
from runner.manifest.unchecked_job import EntrySource, UncheckedJob
from runner.schema.wording import did_you_mean, format_value

_ROUTE = "/v1/videos"
_KEYS = ("custom_id", "method", "url", "body")
_NOTHING: Mapping[str, Json] = {}
_MAX_FIRST_LINE_BYTES = 65_536


def is_batch_file(path: Path) -> bool:
    """Return whether a file is a batch file, by its suffix or by its first line."""
    if path.suffix.lower() in JSONL_SUFFIXES:
        return True
    try:
        with open_regular(path) as stream:
            first = json.loads(stream.readline(_MAX_FIRST_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "custom_id" in first and "body" in first


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
