"""
Placeholders: ``${name}`` in a string is replaced by a value of the job's row, matrix or vars.

A template is compiled once for an entry and rendered once for each job, so that a
million rows cost little: what does not vary is shared between the jobs, and only the
mappings and lists around a placeholder are copied. What is rendered must therefore
not be changed in place.

- A string that is a single placeholder keeps the type of its value.
- ``$${`` is a literal ``${``; a ``$`` without a brace is literal.
- A value that was filled in is never searched for placeholders.
- ``${a.b}`` is a value inside another one, ``${x:-text}`` has a default.
- A key whose value is null is left out, whether it is written so or comes from a row, and so is an item of a list that
  comes from a row; in the lists of metadata null is data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from runner.core.model import Json
from runner.core.problem import Finding, JsonPath, Severity
from runner.manifest.placeholders import LITERAL, PLACEHOLDER, Placeholder, Values, parse_placeholder
from runner.schema.wording import did_you_mean

Render = Callable[[Values], Json]

MAX_FILLED = 50_000_000
"""Bytes that placeholders may fill in, in one value or in all variables; the largest image fits as base64."""


_NODE = 32
"""Bytes that a value other than text counts as, which also bounds how long it takes to count them."""


class TooLong(ValueError):
    """Placeholders fill in more than `MAX_FILLED`."""

    def __init__(self) -> None:
        super().__init__(f"its placeholders would fill in more than {MAX_FILLED // 1_000_000} MB")


def filled_size(value: Json) -> int:
    """
    Return about how many bytes a value takes when it is written out; above `MAX_FILLED` any number above it.

    Lists and mappings may share their parts, so that a small value is written out as a huge one.

    >>> filled_size("abc"), filled_size({"a": [1, 2]})
    (3, 128)
    """
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if not isinstance(value, dict | list):
        return _NODE
    size = _NODE
    for item in value.values() if isinstance(value, dict) else value:
        size += filled_size(item)
        if size > MAX_FILLED:
            break
    return size


class Scope(Struct, frozen=True):
    """
    The names that placeholders may use.

    Attributes:
        constants: Values that are known now, and are filled in while compiling.
        varying: Names with a value for each job. They hide constants of the same name.
        is_open: Whether jobs may have further names, as the rows of JSONL files do.
        used: Gets each name that a placeholder uses.
        note: How the names of a table were found, for the message about one that is missing.
    """

    constants: Mapping[str, Json] = field(default_factory=dict)
    varying: Collection[str] = ()
    is_open: bool = False
    used: set[str] = field(default_factory=set)
    note: str = ""

    def names(self) -> list[str]:
        """List every name that is known before a job is rendered."""
        return sorted({*self.constants, *self.varying})


class Template(Struct, frozen=True):
    """
    A value with placeholders, ready to be rendered.

    Attributes:
        render: Returns the value of one job. A name that the job's values lack is a ``KeyError``.
        varying: The strings that differ from job to job, by path, each with the names that it uses.
        findings: Placeholders that can't be filled; with an error among them the template must not be rendered.
        filled: The size of what placeholders filled in while compiling.
    """

    render: Render
    varying: Mapping[JsonPath, tuple[str, ...]]
    findings: tuple[Finding, ...]
    filled: int = 0


class _Compiled(NamedTuple):
    """A constant, or with ``render`` a value that is rendered for each job."""

    constant: Json
    render: Render | None = None


def compile_template(
    value: Json, scope: Scope, *, filled: int = 0, keeps_nulls_in_lists: bool = False
) -> Template:
    """
    Compile a value with the names of a scope.

    Args:
        filled: The size of what other values filled in, if they count as one with this one.
        keeps_nulls_in_lists: Whether a key inside a list may have the value null; otherwise it is left out.

    >>> scope = Scope(constants={"date": "2026-11-21"}, varying=["seed"])
    >>> template = compile_template({"seed": "${seed}", "tag": "${date}/${seed}", "cost": "$${seed}"}, scope)
    >>> template.render({"seed": 7})
    {'seed': 7, 'tag': '2026-11-21/7', 'cost': '${seed}'}
    >>> compile_template("${sed}", scope).findings[0].hint
    "did you mean 'seed'? The names are date, seed"
    """
    compiler = _Compiler(scope, filled, keeps_nulls_in_lists=keeps_nulls_in_lists)
    constant, render = compiler.compile(value, ())
    return Template(
        render=render or (lambda _: constant),
        varying=compiler.varying,
        findings=tuple(compiler.findings),
        filled=compiler.filled,
    )


def to_text(value: Json) -> str:
    """
    Format a value within a string: as JSON, but text without quotes, and null as the empty string.

    >>> [to_text(value) for value in ("a b", True, 5, 0.5, None, [1, "x"])]
    ['a b', 'true', '5', '0.5', '', '[1, "x"]']
    """
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class _Compiler(Struct):
    """Compiles one value, and collects the paths of what varies and what is wrong."""

    scope: Scope
    filled: int
    keeps_nulls_in_lists: bool
    varying: dict[JsonPath, tuple[str, ...]] = {}
    findings: list[Finding] = []

    def compile(self, value: Json, path: JsonPath) -> _Compiled:
        """Compile a value with everything inside it."""
        if isinstance(value, str):
            return self._string(value, path) if "${" in value else _Compiled(value)
        if isinstance(value, dict):
            return self._mapping(value, path)
        if isinstance(value, list):
            return self._list(value, path)
        return _Compiled(value)

    def _mapping(self, value: Mapping[str, Json], path: JsonPath) -> _Compiled:
        constant: dict[str, Json] = {}
        varying: list[tuple[str, Render]] = []
        keeps_nulls = self.keeps_nulls_in_lists and any(isinstance(step, int) for step in path)
        for key, item in value.items():
            part = self.compile(item, (*path, key))
            if part.render is not None:
                varying.append((key, part.render))
            elif part.constant is None and not keeps_nulls:
                continue
            # A key that varies is added too, to keep the order of the manifest.
            constant[key] = part.constant
        if not varying:
            return _Compiled(constant)

        def render(values: Values) -> Json:
            rendered = constant.copy()
            for key, render_item in varying:
                item = render_item(values)
                if item is None and not keeps_nulls:
                    del rendered[key]
                else:
                    rendered[key] = item
            return rendered

        return _Compiled(None, render)

    def _list(self, value: list[Json], path: JsonPath) -> _Compiled:
        keeps_nulls = self.keeps_nulls_in_lists
        parts = [self.compile(item, (*path, index)) for index, item in enumerate(value)]
        constant = [part.constant for part in parts]
        varying = [(index, part.render) for index, part in enumerate(parts) if part.render is not None]
        if not varying:
            return _Compiled(constant)

        def render(values: Values) -> Json:
            rendered = constant.copy()
            for index, render_item in varying:
                rendered[index] = render_item(values)
            if not keeps_nulls and None in rendered:
                absent = {index for index, _ in varying if rendered[index] is None}
                return [item for index, item in enumerate(rendered) if index not in absent]
            return rendered

        return _Compiled(None, render)

    def _string(self, text: str, path: JsonPath) -> _Compiled:
        pieces = self._pieces(text, path)
        if not any(isinstance(piece, _Varying) for piece in pieces):
            if len(pieces) == 1:
                return _Compiled(pieces[0])
            return _Compiled("".join(map(to_text, pieces)))
        self.varying[path] = tuple(piece.name for piece in pieces if isinstance(piece, _Varying))
        if len(pieces) == 1:
            return _Compiled(None, pieces[0].render)
        return _Compiled(None, _joiner(pieces))

    def _pieces(self, text: str, path: JsonPath) -> list[Json]:
        """Split a string into text, values of constants, and placeholders."""
        pieces: list[Json] = []
        end = 0
        for match in PLACEHOLDER.finditer(text):
            if match.start() > end:
                pieces.append(text[end : match.start()])
            end = match.end()
            pieces.append("${" if match.group() == LITERAL else self._lookup(match, path))
        if end < len(text):
            pieces.append(text[end:])
        return pieces

    def _lookup(self, match: re.Match[str], path: JsonPath) -> Json:
        """Return the value of a placeholder, or what renders it; report one that can't be filled."""
        scope = self.scope
        if not match[2]:
            hint = f"close it with '}}', or write '{LITERAL}' for a literal '${{'"
            self.findings.append(Finding(path, f"placeholder '{match.group()[:40]}' is not closed", hint))
            return ""
        placeholder = parse_placeholder(match[1])
        name = placeholder.name
        root = placeholder.root(scope.varying) or placeholder.root(scope.constants) or name
        scope.used.add(root)
        if root in scope.varying:
            return _Varying(root, placeholder.getter(is_nested=root != name))
        if root in scope.constants:
            try:
                return self._filled_in(placeholder.find(scope.constants), path)
            except KeyError:
                pass
        elif scope.is_open:
            scope.used.add(name.partition(".")[0])
            return _Varying(name.partition(".")[0], placeholder.getter(is_nested="." in name))
        self._report_unknown(placeholder, path)
        return placeholder.default or None

    def _report_unknown(self, placeholder: Placeholder, path: JsonPath) -> None:
        known = self.scope.names()
        guess = did_you_mean(placeholder.name, known)
        if placeholder.default is not None and guess is None:
            return
        names = ", ".join(known)
        hint = f"{guess} The names are {names}" if guess else f"the names are {names}"
        if self.scope.note:
            hint += f"; {self.scope.note}"
        message = f"unknown placeholder '${{{placeholder.name}}}'"
        severity = Severity.ERROR
        if placeholder.default is not None:
            message += ", which has its default everywhere"
            severity = Severity.WARNING
        self.findings.append(Finding(path, message, hint, severity))

    def _filled_in(self, value: Json, path: JsonPath) -> Json:
        is_reported = self.filled > MAX_FILLED
        self.filled += filled_size(value)
        if self.filled <= MAX_FILLED:
            return value
        if not is_reported:
            self.findings.append(Finding(path, str(TooLong()), "shorten the variables that it uses"))
        return ""


class _Varying(Struct, frozen=True):
    """A placeholder whose value differs from job to job; ``name`` is that of the job's value that has it."""

    name: str
    render: Render


def _joiner(pieces: list[Json]) -> Render:
    fixed = [None if isinstance(piece, _Varying) else to_text(piece) for piece in pieces]
    varying = [(index, piece.render) for index, piece in enumerate(pieces) if isinstance(piece, _Varying)]

    def render(values: Values) -> Json:
        parts = fixed.copy()
        for index, render_piece in varying:
            value = render_piece(values)
            parts[index] = value if type(value) is str else to_text(value)
        if sum(map(len, parts)) > MAX_FILLED:  # type: ignore[arg-type]  # as below
            raise TooLong
        return "".join(parts)  # type: ignore[arg-type]  # every None was a placeholder, and is text now

    return render


class EntryVariables(Struct, frozen=True):
    """
    A scope with variables added.

    Attributes:
        scope: The names, including those of the variables.
        computed: Variables that differ from job to job, in the order to compute them.
        findings: What is wrong with them, by paths from the root of the variables.
    """

    scope: Scope
    computed: tuple[tuple[str, Render], ...]
    findings: list[Finding]


def entry_variables(
    declared: Mapping[str, Json], scope: Scope, overrides: Mapping[str, Json]
) -> EntryVariables:
    """Add variables to a scope: each may use the names before it; those of the command line replace all others."""
    constants = dict(scope.constants)
    varying = set(scope.varying)
    computed: list[tuple[str, Render]] = []
    filled = 0
    findings: list[Finding] = []
    for name, value in declared.items():
        scope.used.add(name)
        if name in overrides:
            constants[name] = overrides[name]
            varying.discard(name)
            continue
        template = compile_template(
            value, replace(scope, constants=constants, varying=frozenset(varying)), filled=filled
        )
        filled = template.filled
        findings += [Finding((name, *found.path), found.message, found.hint) for found in template.findings]
        if template.varying:
            computed.append((name, template.render))
            varying.add(name)
        else:
            constants[name] = template.render({})
            varying.discard(name)
    inner = replace(scope, constants=constants, varying=frozenset(varying))
    return EntryVariables(inner, tuple(computed), findings)
