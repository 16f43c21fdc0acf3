"""
Batch files: JSONL by the convention of other batch APIs, accepted wherever a manifest is.

A line is ``{"custom_id": …, "method": "POST", "url": "/v1/videos", "body": {…}}``. There
are no settings, defaults or placeholders: a body is sent as it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.manifest.document import ProblemHandler
from runner.manifest.row_files import JSONL_SUFFIXES, RowFileError, read_jsonl
from runner.manifest.unchecked_job import EntrySource, UncheckedJob

_ROUTE = "/v1/videos"
_KEYS = ("custom_id", "method", "url", "body")
_NOTHING: Mapping[str, Json] = {}
_HEAD_BYTES = 65_536


def is_batch_file(path: Path) -> bool:
    """Say whether a file is of the batch convention: by its suffix, or by its first line."""
    if path.suffix.lower() in JSONL_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            head = stream.readline(_HEAD_BYTES)
        first = json.loads(head)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "custom_id" in first and "body" in first


class BatchFile:
    """
    The jobs of a batch file.

    Attributes:
        base_url: Of the gateway, where the file's first line names one; every line must then name the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._url = self._first_url()
        self.base_url = self._url.removesuffix(_ROUTE) or None

    def unchecked_jobs(self, report: ProblemHandler) -> Iterator[UncheckedJob]:
        """Stream the jobs. What is wrong with a line is reported, and the line left out."""
        origin = EntrySource(None, row_file=str(self.path))

        is_empty = True

        def complain(line: int, message: str, hint: str | None) -> None:
            nonlocal is_empty
            is_empty = False
            origin.report_row(line, Finding((), message, hint), report)

        url = self._url
        try:
            for line, row in read_jsonl(self.path, complain):
                is_empty = False
                if (
                    len(row) == len(_KEYS)
                    and row.get("url") == url
                    and row.get("method") == "POST"
                    and type(row.get("body")) is dict
                    and "custom_id" in row
                ):
                    body = row["body"]
                    yield UncheckedJob(origin, row["custom_id"], body, _NOTHING, _NOTHING, None, line)
                else:
                    for finding in _findings(row, url):
                        origin.report_row(line, finding, report, row.get("custom_id"))
        except RowFileError as error:
            is_empty = False
            origin.report_once(Finding((), error.message, error.hint), report)
        if is_empty:
            origin.report_once(Finding((), "the batch file has no jobs", severity=Severity.WARNING), report)

    def _first_url(self) -> str:
        """Read the address that the first readable line names; without one, that of the convention."""
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
        if key not in _KEYS:
            from runner.schema.wording import did_you_mean

            yield Finding((key,), f"unknown key {key[:40]!r}", did_you_mean(key, _KEYS))
    if row.get("method", "POST") != "POST":
        yield Finding(("method",), f"method: {_shown(row['method'])} is not 'POST'")
    if row.get("url", url) != url:
        yield _url_finding(row["url"], url)
    if type(row.get("body", _NOTHING)) is not dict and "body" in row:
        yield Finding(("body",), "body: the request must be an object")


def _url_finding(found: Json, expected: str) -> Finding:
    if isinstance(found, str) and _is_address(found):
        return Finding(
            ("url",),
            f"url: {_shown(found)} differs from {expected!r} on the first line",
            "a file has one gateway",
        )
    return Finding(("url",), f"url: {_shown(found)} does not make videos", f"only {_ROUTE} is supported")


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
