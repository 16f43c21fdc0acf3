"""
One entry of a manifest becomes the jobs that it stands for.

Most entries of a large manifest stand for one job each, without a placeholder:
these take a short way, and import nothing that only the others need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from runner.core.problem import Finding, Severity
from runner.core.spec import Json
from runner.core.units import parse_duration
from runner.manifest.document import Entry, Report
from runner.manifest.draft import Draft, Origin
from runner.manifest.inheritance import Inheritance
from runner.manifest.lines import FileUnusable
from runner.manifest.plain import is_plain

if TYPE_CHECKING:
    from runner.manifest.axes import Axes
    from runner.manifest.variables import Variables

FANNING_KEYS = frozenset({"matrix", "repeat", "from", "vars"})
"""The keys of an entry that give its jobs values of their own."""

_NOTHING: Mapping[str, Json] = {}


class Expander:
    """
    Turns the entries of one manifest into jobs.

    Args:
        folder: That row files are found in.
    """

    def __init__(self, inheritance: Inheritance, variables: Variables, folder: FilePath) -> None:
        self._inheritance = inheritance
        self._variables = variables
        self._folder = folder

    def drafts(self, entry: Entry, report: Report) -> Iterator[Draft]:
        """Stream the jobs of an entry. What is wrong with it is reported, and the jobs concerned left out."""
        value = entry.value
        origin = _origin(entry)
        inheritance = self._inheritance
        if inheritance.is_plain and value.keys().isdisjoint(FANNING_KEYS) and is_plain(value):
            own = value.get("request", _NOTHING)
            yield Draft(
                origin,
                value.get("id"),
                inheritance.request(own, inheritance.model_of(own)),
                inheritance.metadata(value.get("metadata", _NOTHING)),
                value.get("extra", _NOTHING),
                value.get("task_id"),
            )
            return
        from runner.manifest.axes import read_axes

        try:
            axes = read_axes(value, self._folder)
            if axes.rows is not None:
                origin.rows_file = str(axes.rows.path)
            yield from self._fanned_out(value, axes, origin, report)
        except FileUnusable as error:
            self._report_rows_file(origin, value["from"], error, report)

    def _fanned_out(
        self, value: Mapping[str, Json], axes: Axes, origin: Origin, report: Report
    ) -> Iterator[Draft]:
        from runner.manifest.fan import Fan

        fan = Fan(value, axes, self._inheritance, self._variables, origin, report)
        if fan.is_broken:
            return
        yield from fan.drafts()
        if fan.is_empty and not fan.has_complained:
            message = f"'{value['from']}' has no rows; the entry makes no job"
            origin.report_once(Finding(("from",), message, severity=Severity.WARNING), report)

    def _report_rows_file(self, origin: Origin, name: str, error: FileUnusable, report: Report) -> None:
        if error.line:
            origin.rows_file = str(self._folder / name)
            origin.report_row(error.line, Finding(("from",), error.message, error.hint), report)
        else:
            hint = error.hint or f"row files are found from the manifest's folder: {self._folder / name}"
            origin.report_once(Finding(("from",), error.message, hint), report)


def _origin(entry: Entry) -> Origin:
    timeout = entry.value.get("timeout")
    return Origin(
        entry,
        schema=entry.value.get("schema"),
        timeout_s=None if timeout is None else parse_duration(timeout),
    )
