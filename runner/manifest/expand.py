"""
One entry of a manifest becomes the jobs that it stands for.

Most entries of a large manifest stand for one job each, without a placeholder:
these take a short way. For the others everything is compiled once, and only
what differs is put in for each job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.core.model import Json
from runner.core.problem import Finding
from runner.core.units import parse_duration
from runner.manifest.axes import FANNING_KEYS, Axes, read_axes
from runner.manifest.document import Entry, Report
from runner.manifest.draft import Draft, Origin
from runner.manifest.inheritance import Inheritance
from runner.manifest.lines import FileUnusable
from runner.manifest.template import Scope, Template, Values, compile_template, is_plain
from runner.manifest.variables import Variables

_NOTHING: Mapping[str, Json] = {}


class Expander:
    """
    Turns the entries of one manifest into jobs.

    Args:
        folder: That row files are found in.
    """

    def __init__(self, inheritance: Inheritance, variables: Variables, folder: Path, report: Report) -> None:
        self._inheritance = inheritance
        self._variables = variables
        self._folder = folder
        self._report = report

    def drafts(self, entry: Entry) -> Iterator[Draft]:
        """Stream the jobs of an entry. What is wrong with it is reported, and the jobs concerned left out."""
        value = entry.value
        inheritance = self._inheritance
        if inheritance.is_plain and value.keys().isdisjoint(FANNING_KEYS) and is_plain(value):
            request = value.get("request", _NOTHING)
            yield Draft(
                _origin(entry),
                value.get("id"),
                inheritance.request(request, inheritance.model_of(request)),
                inheritance.metadata_with(value.get("metadata", _NOTHING)),
                value.get("extra", _NOTHING),
                value.get("task_id"),
            )
            return
        try:
            axes = read_axes(value, self._folder)
        except FileUnusable as error:
            origin = _origin(entry)
            origin.report(Finding(("from",), error.message, error.hint), self._report, line=error.line)
            return
        yield from _Fan(entry, axes, inheritance, self._variables, self._report).drafts()


class _Fan:
    """One entry, compiled."""

    def __init__(
        self, entry: Entry, axes: Axes, inheritance: Inheritance, variables: Variables, report: Report
    ) -> None:
        self._axes = axes
        self._inheritance = inheritance
        self._report = report
        value = entry.value
        self._origin = _origin(entry, axes)
        scope, self._computed, findings = variables.with_own(value.get("vars", _NOTHING), axes.scope())
        self._scope = scope
        self._own = value.get("request", _NOTHING)
        self._id = self._compile(value.get("id"), ("id",))

    def drafts(self) -> Iterator[Draft]:
        raise NotImplementedError
