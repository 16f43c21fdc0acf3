"""
One entry with placeholders, rows, a matrix or repetitions, and the jobs that it fans out to.

Everything is compiled once, and only what differs is put in for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from runner.core.problem import Finding
from runner.core.spec import Json
from runner.manifest.axes import Axes
from runner.manifest.document import Report
from runner.manifest.draft import Draft, Origin
from runner.manifest.inheritance import Inheritance
from runner.manifest.mould import Mould
from runner.manifest.own_variables import own_variables
from runner.manifest.template import Scope, Template, Values, compile_template
from runner.manifest.variables import Variables

_NOTHING: Mapping[str, Json] = {}


class Fan:
    """
    One entry, compiled.

    Attributes:
        is_broken: Whether something is wrong with the entry itself, so that it makes no job.
        is_empty: Whether it had nothing to make a job of, once its jobs were streamed.
        has_complained: Whether a row was left out.
    """

    def __init__(
        self,
        value: Mapping[str, Json],
        axes: Axes,
        inheritance: Inheritance,
        variables: Variables,
        origin: Origin,
        report: Report,
    ) -> None:
        self.is_broken = False
        self.is_empty = False
        self.has_complained = False
        self._origin = origin
        self._report = report
        self._axes = axes
        self._inheritance = inheritance
        for finding in axes.findings():
            self._refuse(finding)
        outer = Scope(variables.values, frozenset(axes.names()), axes.is_open)
        own = own_variables(value.get("vars", _NOTHING), outer, variables.overrides)
        for finding in own.findings:
            self._refuse(finding, "vars")
        self._computed = own.computed
        self._scope = own.scope
        origin.names = tuple(sorted({*axes.names(), *(name for name, _ in own.computed)}))
        self._id = self._compile(value.get("id"), "id")
        self._metadata = self._compile(inheritance.metadata(value.get("metadata", _NOTHING)), "metadata")
        self._extra = self._compile(value.get("extra", {}), "extra")
        self._task_id = self._compile(value.get("task_id"), "task_id")
        self._own_request = value.get("request", _NOTHING)
        self._requests = self._moulds()

    def drafts(self) -> Iterator[Draft]:
        """Stream the jobs; what is wrong with a row is reported, and the row left out."""
        origin, computed = self._origin, self._computed
        job_id, metadata, extra, task_id = (
            template.render for template in (self._id, self._metadata, self._extra, self._task_id)
        )
        line = None
        for line, repetition, values in self._axes.scenes(self._complain):
            try:
                for name, render in computed:
                    values[name] = render(values)
                mould = self._requests(values)
                yield Draft(
                    origin,
                    job_id(values),
                    mould.render(values),
                    metadata(values),
                    extra(values),
                    task_id(values),
                    line,
                    repetition,
                    mould,
                )
            except KeyError as error:
                known = ", ".join(sorted(values)) or "nothing"
                self._complain(
                    line, f"the row has no '{error.args[0]}', which the job uses", f"it has {known}"
                )
        self.is_empty = line is None

    def _moulds(self) -> Callable[[Values], Mould]:
        """Compile the request: once, or where rows name the model, once for each model with defaults of its own."""
        inheritance, own = self._inheritance, self._own_request
        model = compile_template(inheritance.model_of(own), self._scope)
        if not model.varying:
            only = self._mould(model.render({}))
            return lambda _: only
        by_model: dict[str | None, Mould] = {None: self._mould(None)}

        def of_values(values: Values) -> Mould:
            name = model.render(values)
            key = name if inheritance.has_own(name) else None
            if key not in by_model:
                by_model[key] = self._mould(name)
            return by_model[key]

        return of_values

    def _mould(self, model: Json) -> Mould:
        return Mould(self._compile(self._inheritance.request(self._own_request, model), "request"))

    def _compile(self, value: Json, key: str) -> Template:
        """Compile a value that stands under a key of the entry."""
        template = compile_template(value, self._scope)
        for finding in template.findings:
            self._refuse(finding, key)
        return template

    def _refuse(self, finding: Finding, *under: str) -> None:
        self.is_broken = True
        self._origin.report_once(replace(finding, path=(*under, *finding.path)), self._report)

    def _complain(self, line: int, message: str, hint: str | None) -> None:
        self.has_complained = True
        self._origin.report_row(line, Finding((), message, hint), self._report)
