"""
Placeholders: ``${name}`` in a string of a job takes a value of its row, its matrix or its vars.

A template is compiled once for an entry and rendered once for a job, so that a
million rows cost little: what does not vary is shared between the jobs, and
only the mappings and lists on the way to a placeholder are made anew. What is
rendered must therefore not be changed in place.

- A string that is one placeholder and nothing else keeps the type of its value.
- ``$${`` is a literal ``${``; a ``$`` without a brace is itself.
- A value that was put in is never read again for placeholders.
- A key whose value is null is not there, whether it was written so or comes from a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from typing import NamedTuple

from msgspec import Struct, field

from runner.core.model import Json
from runner.core.problem import Finding
from runner.manifest.job_digest import DigestTemplate, request_digest
from runner.schema.request_schema import RequestSchema

Path = tuple[str | int, ...]
Values = Mapping[str, Json]
Render = Callable[[Values], Json]

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_LITERAL = "$${"


class Scope(Struct, frozen=True):
    """
    The names that placeholders may use.

    Attributes:
        constants: Names whose values are known now, and are put in while compiling.
        varying: Names that take a value for each job. They hide constants of the same name.
        is_open: Whether further names may turn up job by job, as the keys of JSONL rows do.
    """

    constants: Mapping[str, Json] = field(default_factory=dict)
    varying: Collection[str] = ()
    is_open: bool = False

    def names(self) -> list[str]:
        """List every name that is known before a job is at hand."""
        return sorted({*self.constants, *self.varying})


class Template(Struct, frozen=True):
    """
    A value with placeholders, ready to be rendered.

    Attributes:
        render: Makes the value for one job. A name that the job's values lack is a ``KeyError``.
        varying: Paths of the strings that differ from job to job; empty where the value is constant.
        findings: Placeholders that can't be filled; with any of them the template is of no use.
    """

    render: Render
    varying: frozenset[Path]
    findings: tuple[Finding, ...]

    def varies_at(self, path: Path) -> bool:
        """Say whether what stands at a path, or around it, comes from the values of a job."""
        return any(path[: len(leaf)] == leaf or leaf[: len(path)] == path for leaf in self.varying)


class _Compiled(NamedTuple):
    """A constant, or with ``render`` a value that is made for each job."""

    constant: Json
    render: Render | None = None


def compile_template(value: Json, scope: Scope) -> Template:
    """
    Prepare a value for rendering with the names of a scope.

    >>> scope = Scope(constants={"date": "2026-11-21"}, varying=["seed"])
    >>> template = compile_template({"seed": "${seed}", "tag": "${date}/${seed}", "cost": "$${seed}"}, scope)
    >>> template.render({"seed": 7})
    {'seed': 7, 'tag': '2026-11-21/7', 'cost': '${seed}'}
    >>> compile_template("${sed}", scope).findings[0].hint
    "did you mean 'seed'? There are date, seed"
    """
    compiler = _Compiler(scope)
    constant, render = compiler.compile(value, ())
    return Template(
        render=render or (lambda _: constant),
        varying=frozenset(compiler.varying),
        findings=tuple(compiler.findings),
    )


def to_text(value: Json) -> str:
    """
    Write a value for the middle of a string: JSON, but text without quotes and null as nothing.

    >>> [as_text(value) for value in ("a b", True, 5, 0.5, None, [1, "x"])]
    ['a b', 'true', '5', '0.5', '', '[1, "x"]']
    """
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class _Compiler:
    """Walks one value, and gathers what varies and what is wrong on the way."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.varying: list[Path] = []
        self.findings: list[Finding] = []

    def compile(self, value: Json, path: Path) -> _Compiled:
        """Turn a value, however deep, into one that is filled in for each job."""
        if isinstance(value, str):
            return self._string(value, path) if "${" in value else _Compiled(value)
        if isinstance(value, dict):
            return self._mapping(value, path)
        if isinstance(value, list):
            return self._list(value, path)
        return _Compiled(value)

    def _mapping(self, value: Mapping[str, Json], path: Path) -> _Compiled:
        constant: dict[str, Json] = {}
        varying: list[tuple[str, Render]] = []
        for key, item in value.items():
            part = self.compile(item, (*path, key))
            if part.render is not None:
                varying.append((key, part.render))
            elif part.constant is None:
                continue
            # A key that varies is entered too: it keeps the place that it has in the manifest.
            constant[key] = part.constant
        if not varying:
            return _Compiled(constant)

        def render(values: Values) -> Json:
            rendered = constant.copy()
            for key, render_item in varying:
                item = render_item(values)
                if item is None:
                    del rendered[key]
                else:
                    rendered[key] = item
            return rendered

        return _Compiled(None, render)

    def _list(self, value: list[Json], path: Path) -> _Compiled:
        parts = [self.compile(item, (*path, place)) for place, item in enumerate(value)]
        constant = [part.constant for part in parts]
        varying = [(place, part.render) for place, part in enumerate(parts) if part.render is not None]
        if not varying:
            return _Compiled(constant)

        def render(values: Values) -> Json:
            rendered = constant.copy()
            for place, render_item in varying:
                rendered[place] = render_item(values)
            return rendered

        return _Compiled(None, render)

    def _string(self, text: str, path: Path) -> _Compiled:
        pieces = self._pieces(text, path)
        if not any(isinstance(piece, _Placeholder) for piece in pieces):
            if len(pieces) == 1:
                return _Compiled(pieces[0])
            return _Compiled("".join(map(to_text, pieces)))
        self.varying.append(path)
        if len(pieces) == 1:
            return _Compiled(None, itemgetter(pieces[0].text))
        return _Compiled(None, _joiner(pieces))

    def _pieces(self, text: str, path: Path) -> list[Json]:
        """Cut a string into text, values of constants, and names that wait for a job."""
        pieces: list[Json] = []
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            if match.start() > end:
                pieces.append(text[end : match.start()])
            end = match.end()
            pieces.append("${" if match.group() == _LITERAL else self._lookup(match, path))
        if end < len(text):
            pieces.append(text[end:])
        return pieces

    def _lookup(self, match: re.Match[str], path: Path) -> Json:
        name, closing = match[1].strip(), match[2]
        scope = self._scope
        if not closing:
            hint = f"close it with '}}', or write '{_LITERAL}' for a literal '${{'"
            self.findings.append(Finding(path, f"placeholder '{match.group()[:40]}' has no end", hint))
        elif name in scope.varying:
            return _Placeholder(name)
        elif name in scope.constants:
            return scope.constants[name]
        elif scope.is_open:
            return _Placeholder(name)
        else:
            known = scope.names()
            from runner.schema.wording import did_you_mean

            guess = did_you_mean(name, known)
            hint = f"{guess} There are {', '.join(known)}" if guess else f"there are {', '.join(known)}"
            self.findings.append(Finding(path, f"unknown placeholder '${{{name}}}'", hint))
        return ""


class _Placeholder(Struct, frozen=True):
    """A placeholder that takes its value from a job."""

    text: str


def _joiner(pieces: list[Json]) -> Render:
    fixed = [None if isinstance(piece, _Placeholder) else to_text(piece) for piece in pieces]
    names = [(place, piece.text) for place, piece in enumerate(pieces) if isinstance(piece, _Placeholder)]

    def render(values: Values) -> Json:
        parts = fixed.copy()
        for place, name in names:
            value = values[name]
            parts[place] = value if type(value) is str else to_text(value)
        return "".join(parts)  # type: ignore[arg-type]  # every None was a name, and now holds text

    return render


class EntryVariables(Struct, frozen=True):
    """
    What the variables of one job add to its names.

    Attributes:
        scope: The names, with those of the variables among them.
        computed: Variables that differ from job to job, in the order to work them out.
        findings: What is wrong with them, by paths from the variables' root.
    """

    scope: Scope
    computed: tuple[tuple[str, Render], ...]
    findings: list[Finding]


def entry_variables(
    written: Mapping[str, Json], scope: Scope, overrides: Mapping[str, Json]
) -> EntryVariables:
    """Add variables to a scope, each over the names before it, and the command line's over all."""
    constants = dict(scope.constants)
    varying = set(scope.varying)
    computed: list[tuple[str, Render]] = []
    findings: list[Finding] = []
    for name, value in written.items():
        if name in overrides:
            constants[name] = overrides[name]
            varying.discard(name)
            continue
        template = compile_template(value, Scope(constants, frozenset(varying), scope.is_open))
        findings += [Finding((name, *found.path), found.message, found.hint) for found in template.findings]
        if template.varying:
            computed.append((name, template.render))
            varying.add(name)
        else:
            constants[name] = template.render({})
            varying.discard(name)
    return EntryVariables(Scope(constants, frozenset(varying), scope.is_open), tuple(computed), findings)


class RequestTemplate:
    """
    Makes the requests of one template.

    Attributes:
        render: Makes the request of one job. A name that the job's values lack is a ``KeyError``.
        varying: Paths of what differs between the requests, from their root.
        schema_name: Of the first clean request, once `learn` was told of it.
    """

    def __init__(self, template: Template) -> None:
        self.render = template.render
        self.varying = template.varying
        self.schema_name = ""
        self._keys = {str(path[0]) for path in template.varying}
        self._texts: tuple[tuple[str, int], ...] = ()
        self._alike: dict[str, DigestTemplate] = {}

    def set_clean_example(self, request: dict[str, Json], schema: RequestSchema) -> None:
        """Take in the first clean request, which the schema left as it was made."""
        self.schema_name = schema.name
        free = schema.length_only_fields(request)
        if self._keys <= free.keys():
            self._texts = tuple((key, free[key]) for key in self._keys)

    def is_known_clean(self, request: dict[str, Json]) -> bool:
        """Say whether a request must be as clean as the first, since only texts are others that no rule is about."""
        for key, longest in self._texts:
            text = request.get(key)
            if type(text) is not str or not 0 < len(text) <= longest:
                return False
        return self._texts != ()

    def digest(self, request: dict[str, Json], schema: str) -> str:
        """
        Give what `request_digest` does, for a request that was normalised by the schema of this name.

        Raises:
            ValueError: As for `request_digest`.
        """
        alike = self._alike.get(schema)
        if alike is None:
            if not self._keys <= request.keys():
                return request_digest(request)
            alike = self._alike[schema] = DigestTemplate(request, self._keys)
        try:
            return alike.digest(request)
        except KeyError:
            # A null in the row took a key away.
            return request_digest(request)
