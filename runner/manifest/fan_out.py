"""
The jobs of one entry with placeholders, rows, a matrix or repetitions.

Everything is compiled once, and only what differs is rendered for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.manifest.document import ProblemHandler
from runner.manifest.header import DefaultsMerger
from runner.manifest.placeholders import Values
from runner.manifest.row_files import RowFiles, open_row_files
from runner.manifest.row_readers import Row, RowErrorHandler, RowFile, RowFileError
from runner.manifest.settings import Variables
from runner.manifest.template import (
    MAX_FILLED,
    Render,
    Scope,
    Template,
    TooLong,
    compile_template,
    entry_variables,
    filled_size,
)
from runner.manifest.unchecked_job import EntrySource, RequestTemplate, UncheckedJob
from runner.schema.wording import did_you_mean

_NOTHING: Mapping[str, Json] = {}


class EntryExpansion:
    """
    One entry, compiled.

    Attributes:
        is_invalid: Whether something is wrong with the entry itself, so that it makes no job.
        is_empty: Whether it made no job; known once its jobs were streamed.
        has_row_errors: Whether a row was left out.
    """

    def __init__(
        self,
        value: Mapping[str, Json],
        dimensions: Dimensions,
        defaults: DefaultsMerger,
        variables: Variables,
        source: EntrySource,
        report: ProblemHandler,
    ) -> None:
        self.is_invalid = False
        self.is_empty = False
        self.has_row_errors = False
        self._source = source
        self._report = report
        self._dimensions = dimensions
        self._defaults = defaults
        for finding in dimensions.findings():
            self._report_entry(finding)
        used: set[str] = set()
        note = dimensions.rows.note if dimensions.rows else ""
        outer = Scope(variables.values, frozenset(dimensions.names()), dimensions.is_open, used, note)
        own = entry_variables(value.get("vars", _NOTHING), outer, variables.overrides)
        for finding in own.findings:
            self._report_entry(finding, "vars")
        self._computed = own.computed
        self._scope = own.scope
        source.variable_names = tuple(sorted({*dimensions.names(), *(name for name, _ in own.computed)}))
        self._id = self._compile(value.get("id"), "id")
        self._metadata = self._compile(defaults.merge_metadata(value.get("metadata", _NOTHING)), "metadata")
        self._extra = self._compile(value.get("extra", {}), "extra")
        self._task_id = self._compile(value.get("task_id"), "task_id")
        self._request = value.get("request", _NOTHING)
        self._template_for = self._choose_template()
        for finding in dimensions.filter_findings(used):
            self._report_entry(finding)
        variables.used.update(used.difference(dimensions.names()))

    def jobs(self) -> Iterator[UncheckedJob]:
        """Stream the jobs; what is wrong with a row is reported, and the row left out."""
        source, computed = self._source, self._computed
        job_id, metadata, extra, task_id = (
            template.render for template in (self._id, self._metadata, self._extra, self._task_id)
        )
        line = None
        for line, repetition, values in self._dimensions.combinations(self._begin_file, self._report_row):
            try:
                if computed:
                    _add_computed(values, computed)
                template = self._template_for(values)
                yield UncheckedJob(
                    source,
                    job_id(values),
                    template.render(values),
                    metadata(values),
                    extra(values),
                    task_id(values),
                    line,
                    repetition,
                    template,
                )
            except KeyError as error:
                known = ", ".join(sorted(values)) or "nothing"
                message = f"the row has no '{error.args[0]}', which the job uses"
                self._report_row(line, 0, message, f"it has {known}")
            except TooLong as error:
                if line:
                    self._report_row(line, 0, str(error), "shorten its values")
                else:
                    self._source.report_once(Finding((), str(error), "shorten the variables"), self._report)
        self.is_empty = line is None

    def _choose_template(self) -> Callable[[Values], RequestTemplate]:
        """Compile the request: once, or if rows name the model, once for each model with defaults of its own."""
        model = compile_template(self._defaults.model_of(self._request), self._scope)
        if not model.varying:
            only = self._request_template(model.render({}))
            return lambda _: only
        by_model: dict[str | None, RequestTemplate] = {None: self._request_template(None)}

        def template_for(values: Values) -> RequestTemplate:
            name = model.render(values)
            key = name if self._defaults.has_model(name) else None
            if key not in by_model:
                by_model[key] = self._request_template(name)
            return by_model[key]

        return template_for

    def _request_template(self, model: Json) -> RequestTemplate:
        return RequestTemplate(self._compile(self._defaults.merge_request(self._request, model), "request"))

    def _compile(self, value: Json, key: str) -> Template:
        """Compile the value of a key of the entry."""
        # A merge reaches no null inside a list, so that there it can only be meant as a value.
        template = compile_template(value, self._scope, keeps_nulls_in_lists=key == "metadata")
        for finding in template.findings:
            self._report_entry(finding, key)
        return template

    def _report_entry(self, finding: Finding, *parents: str) -> None:
        if finding.severity is Severity.ERROR:
            self.is_invalid = True
        self._source.report_once(replace(finding, path=(*parents, *finding.path)), self._report)

    def _begin_file(self, rows: RowFile) -> None:
        self._source.begin_file(rows)
        for line, message, hint in rows.warnings:
            finding = Finding((), message, hint, Severity.WARNING)
            self._source.report_row(line, finding, self._report)

    def _report_row(self, line: int, column: int, message: str, hint: str | None) -> None:
        self.has_row_errors = True
        self._source.report_row(line, Finding((), message, hint), self._report, column=column)


def _add_computed(values: dict[str, Json], computed: Iterable[tuple[str, Render]]) -> None:
    filled = 0
    for name, render in computed:
        values[name] = value = render(values)
        filled += filled_size(value)
        if filled > MAX_FILLED:
            raise TooLong


REPEAT_NAME = "n"
"""The name of the number of a repetition, which is counted from 1."""

MAX_JOBS = 10_000_000
"""Jobs that an entry may make; a matrix with many axes makes billions without anybody noticing."""

_FILTER_NAMES = ("exclude", "include")
"""Keys that select combinations in the matrices of other programs."""

Combination = tuple[int, int | None, dict[str, Json]]
"""A row's line (0 without rows), the number of the repetition (or None), and a job's values by name."""


class Dimensions(Struct, frozen=True):
    """
    The dimensions of an entry: it makes a job for each row, combination of the matrix, and repetition.

    Attributes:
        matrix: Values by name.
        repeat: How often each job is made; None if the entry has no ``repeat``.
    """

    rows: RowFiles | None
    matrix: Mapping[str, Sequence[Json]]
    repeat: int | None

    def names(self) -> tuple[str, ...]:
        """List the names of a job's values; those of JSONL rows are known only when they are read."""
        columns = self.rows.names or () if self.rows else ()
        return (*columns, *self.matrix, *((REPEAT_NAME,) if self.repeat is not None else ()))

    @property
    def is_open(self) -> bool:
        """Whether rows may have names that are not known before they are read."""
        return self.rows is not None and self.rows.names is None

    def findings(self) -> list[Finding]:
        """List names that are used twice."""
        columns = set(self.rows.names or ()) if self.rows else set[str]()
        findings = self._condition_findings()
        findings += [
            Finding(("matrix", name), f"'{name}' is a column of the row file too", "rename one of them")
            for name in self.matrix
            if name in columns
        ]
        if self.repeat is not None and REPEAT_NAME in columns | set(self.matrix):
            message = f"'{REPEAT_NAME}' is the number of the repetition, and is a column or in the matrix too"
            findings.append(Finding(("repeat",), message, "rename the other one"))
        jobs = self._jobs_of_a_row()
        if jobs > MAX_JOBS:
            message = f"this makes {jobs:,} jobs; an entry makes {MAX_JOBS:,} at most"
            findings.append(Finding(("matrix",) if self.matrix else ("repeat",), message))
        return findings

    def _condition_findings(self) -> list[Finding]:
        """List conditions on columns that the row files do not have."""
        if self.rows is None or self.rows.names is None:
            return []
        names = self.rows.names
        return [
            Finding(
                ("where",),
                f"where: no column is named '{condition.name}'",
                did_you_mean(condition.name, names)
                or f"the columns are {', '.join(names)}; {self.rows.note}",
            )
            for condition in self.rows.conditions
            if condition.name not in names and condition.name.partition(".")[0] not in names
        ]

    def _jobs_of_a_row(self) -> int:
        return prod(map(len, self.matrix.values())) * (1 if self.repeat is None else self.repeat)

    def filter_findings(self, used: Collection[str]) -> Iterator[Finding]:
        """Find axes that were probably meant to select combinations: no placeholder uses them."""
        for name in _FILTER_NAMES:
            if name in self.matrix and name not in used:
                message = f"matrix.{name}: this would be an axis of the matrix like any other, and no placeholder uses it"
                hint = f"write the combinations as several entries; for an axis of this name, use ${{{name}}}"
                yield Finding(("matrix", name), message, hint)

    def combinations(
        self, on_file: Callable[[RowFile], None], on_error: RowErrorHandler
    ) -> Iterator[Combination]:
        """
        Stream the values of every job; the caller may change each mapping. The handlers are those of `RowFiles.read`.

        Raises:
            RowFileError: The row file can't be read to its end.
        """
        rows: Iterator[Row] = iter([(0, {})]) if self.rows is None else self.rows.read(on_file, on_error)
        if not self.matrix and self.repeat is None:
            for line, row in rows:
                yield line, None, row
            return
        names = tuple(self.matrix)
        made, jobs_of_a_row = 0, self._jobs_of_a_row()
        for line, row in rows:
            made += jobs_of_a_row
            if made > MAX_JOBS:
                raise RowFileError(line, f"the entry makes more than {MAX_JOBS:,} jobs from this row on")
            for choice in product(*self.matrix.values()):
                values = row | dict(zip(names, choice, strict=True))
                if self.repeat is None:
                    yield line, None, values
                    continue
                for number in range(1, self.repeat + 1):
                    yield line, number, values | {REPEAT_NAME: number}


def read_dimensions(entry: Mapping[str, Json], folder: Path) -> Dimensions:
    """
    Read the dimensions of an entry that fits the schema.

    Raises:
        RowFileError: A row file that it names can't be read, or a key beside ``from`` does not fit it.
    """
    rows = None
    if "from" in entry:
        rows = open_row_files(
            folder,
            entry["from"],
            csv=entry.get("csv"),
            sheet=entry.get("sheet"),
            where=entry.get("where", ()),
        )
    return Dimensions(rows, entry.get("matrix") or {}, entry.get("repeat"))
