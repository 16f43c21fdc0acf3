"""
What is wrong with a value, in sentences for people, for any JSON Schema.

The validator finds the errors; this module keeps those that help. If a value may have
several forms, only the form that was probably meant is explained; if one value breaks
several rules, the most specific one is kept.

A schema may have better words: ``x-messages`` beside a keyword holds ``message``,
``hint`` or both for it (for ``required`` and ``additionalProperties`` by key), and may
move the finding to another ``path`` or apply only ``for`` one value. ``{value}``,
``{length}`` and ``{model}`` are filled in. ``x-warnings`` lists schemas (``when``) with
the message of a warning for what matches one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from runner.core.problem import Finding, JsonPath, Severity, format_path
from runner.core.units import format_count
from runner.schema.catalog import load_catalog
from runner.schema.limits import BodyLimit, WordLimit, body_bytes
from runner.schema.wording import (
    did_you_mean,
    format_bounds,
    format_choices,
    format_value,
    join_or,
    type_mismatch,
    type_name,
)

_WARNING_KEYWORDS = frozenset({"x-warnings", "x-recommended-words", "x-body-bytes"})


def explain(
    schema: dict[str, Any], instance: Any, *, root: str = "request", subject: str | None = None
) -> list[Finding]:
    """
    List everything that is wrong with an instance, errors and warnings, in the schema's order.

    Args:
        root: What the whole instance is called, as in ``unknown key 'seeds' in request``.
        subject: For whom a value is not allowed, usually the model; None if that says nothing.

    >>> explain({"properties": {"seed": {"type": "integer"}}}, {"seed": "x"})[0].message
    "seed: 'x' is text, not a whole number"
    >>> explain({"properties": {"seed": {}}, "additionalProperties": False}, {"matrix": {}})[0].hint
    'it belongs to a job, beside request:'
    """
    if found := list(_non_text_keys(instance)):
        return found
    errors = [leaf for error in ExplainingValidator(schema).iter_errors(instance) for leaf in _flatten(error)]
    findings = (
        finding
        for error in _most_specific(errors)
        for finding in _SchemaError(error, root, subject).findings()
    )
    return list(dict.fromkeys(findings))


def _non_text_keys(instance: Any, path: JsonPath = ()) -> Iterator[Finding]:
    """Find keys that are not text: JSON has no others, and the validator fails on them."""
    if isinstance(instance, dict):
        for key, value in instance.items():
            if not isinstance(key, str):
                where = format_path(path)
                text = f"the key {format_value(key)} is {type_name(key)}, not text"
                yield Finding(path, f"{where}: {text}" if where else text, "put it in quotes")
            else:
                yield from _non_text_keys(value, (*path, key))
    elif isinstance(instance, list):
        for index, value in enumerate(instance):
            yield from _non_text_keys(value, (*path, index))


def _flatten(error: ValidationError) -> Iterator[ValidationError]:
    """Replace a failed union by the errors of the form that was probably meant."""
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    by_form: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        by_form.setdefault(inner.schema_path[0], []).append(inner)
    forms = list(by_form.values())
    candidates = [form for form in forms if not any(_is_about_value(e, "type") for e in form)]
    if not candidates:
        yield _joined(error, [e for form in forms for e in form if _is_about_value(e, "type")])
    elif all(len(form) == 1 and _is_about_value(form[0], "enum", "const") for form in candidates):
        yield _joined(error, [form[0] for form in candidates])
    elif len(candidates) > 1 and all(
        len(form) == 1 and _is_about_value(form[0], "required") for form in candidates
    ):
        yield error
    else:
        for inner in min(candidates, key=_distance):
            yield from _flatten(inner)


def _is_about_value(error: ValidationError, *keywords: str) -> bool:
    """Return whether an error is of one of these keywords, and about the very value that has the forms."""
    return not error.path and error.validator in keywords


def _distance(form: list[ValidationError]) -> tuple[bool, int]:
    """Rank how far a value is from a form: a key that tells the forms apart weighs most."""
    return any(error.validator == "const" for error in form), len(form)


def _joined(union: ValidationError, errors: list[ValidationError]) -> ValidationError:
    """Make one error of the same keyword from those of several forms."""
    keyword = "type" if errors[0].validator == "type" else "enum"
    allowed: list[Any] = []
    for error in errors:
        value: Any = error.validator_value
        is_many = isinstance(value, list) and error.validator != "const"
        allowed.extend(value if is_many else [value])
    return ValidationError(
        "",
        validator=keyword,
        validator_value=list(dict.fromkeys(allowed)),
        path=union.path,
        schema_path=union.schema_path,
        instance=union.instance,
        schema=union.schema,
        parent=union.parent,
    )


def _most_specific(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """
    Keep one error for each value: that of its type, else the narrowest.

    Lists and mappings may have several. A value with an error gets no warning.
    """
    best: dict[Any, ValidationError] = {}
    for number, error in enumerate(errors):
        is_single = error.validator == "type" or not isinstance(error.instance, dict | list)
        place: Any = tuple(error.absolute_path) if is_single else number
        if place not in best or _rank(error) < _rank(best[place]):
            best[place] = error
    yield from best.values()


def _rank(error: ValidationError) -> tuple[int, int]:
    """Order the errors of one value: its type, then the shortest list of choices, then the rest, then warnings."""
    value: Any = error.validator_value
    schema: Any = error.schema
    if error.validator in _WARNING_KEYWORDS:
        return 4, 0
    if error.validator == "enum":
        return 1, len(value)
    if error.validator == "type":
        # A list of choices says more than the type that they all have.
        return (2 if "enum" in schema and "type" not in schema.get("x-messages", {}) else 0), 0
    return 3, 0


class _SchemaError:
    """One error of the validator, to be put into words."""

    def __init__(self, error: ValidationError, root: str, subject: str | None) -> None:
        self.keyword: Any = error.validator
        self.expected: Any = error.validator_value
        self.value: Any = error.instance
        self.schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
        self.path: JsonPath = tuple(error.absolute_path)
        self.subject = subject
        self.context: list[ValidationError] = list(error.context or ())
        self._error = error
        self._root = root
        self._where = format_path(self.path) or root
        self._own_words: dict[str, Any] = self.schema.get("x-messages", {}).get(self.keyword, {})

    def findings(self) -> Iterator[Finding]:
        """Describe the error; several unknown or missing keys are several findings."""
        match self.keyword:
            case "x-warnings":
                yield self._finding(self.expected, "", None, Severity.WARNING)
            case "x-recommended-words":
                message = f"{format_path(self.path)}: {self._error.message}"
                yield Finding(self.path, message, None, Severity.WARNING)
            case "x-body-bytes":
                yield self.expected
            case "additionalProperties":
                yield from self._unknown_keys()
            case "required" | "dependentRequired":
                yield from self._missing_keys()
            case _:
                yield self._value_finding()

    def _value_finding(self) -> Finding:
        text, hint = _SENTENCES.get(self.keyword, _not_allowed)(self)
        if "propertyNames" in self._error.absolute_schema_path:
            return Finding((*self.path, str(self.value)), f"{self._where}: the key {text}", hint)
        words = self._own_words
        if words.get("for", self.value) != self.value:
            words = {}
        return self._finding(words, f"{self._where}: {text}", hint)

    def _unknown_keys(self) -> Iterator[Finding]:
        known = self.schema.get("properties", {})
        absent = [name for name in known if name not in self.value]
        patterns = self.schema.get("patternProperties", {})
        for key in self.value:
            if key in known or any(re.search(pattern, key) for pattern in patterns):
                continue
            words = self._own_words.get(key)
            if words:
                hint = self._fill(words.get("hint"))
            else:
                hint = self._place(key) or did_you_mean(key, absent) or did_you_mean(key, known)
            text = f"unknown key {format_value(key)} in {self._where}"
            yield Finding((*self.path, key), self._fill((words or {}).get("message")) or text, hint)

    def _place(self, key: str) -> str | None:
        """Return where in a manifest a key belongs that is unknown where it is; None if it is known nowhere in one."""
        is_request = self._root == "request"
        if (is_request and self.path) or self._root not in ("the manifest", "the job", "request"):
            return None
        return _places(with_sections=not is_request).get(key)

    def _missing_keys(self) -> Iterator[Finding]:
        required = self.expected
        if isinstance(required, dict):
            required = [name for key, names in required.items() if key in self.value for name in names]
        for name in dict.fromkeys(required):
            if name not in self.value:
                text = f"missing key {format_value(name)} in {self._where}"
                yield self._finding(self._own_words.get(name, {}), text, None)

    def _finding(
        self,
        words: dict[str, Any],
        message: str,
        hint: str | None,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        """Make a finding of the schema's own words, as far as it has any, or else of a message and a hint."""
        path = self.path
        if "message" in words:
            path = (*path, *words.get("path", ()))
            text = self._fill(words["message"]) or ""
            message, hint = (f"{format_path(path)}: {text}" if path else text), None
        return Finding(path, message, self._fill(words.get("hint")) or hint, severity)

    def _fill(self, template: str | None) -> str | None:
        if template is None:
            return None
        length = len(self.value) if isinstance(self.value, str) else 0
        return template.format(
            value=format_value(self.value), length=length, model=self.subject or "this model"
        )


@cache
def _places(*, with_sections: bool) -> dict[str, str]:
    """Return where each key of a manifest belongs, of a job or the whole, and of its sections if wanted."""
    document = load_catalog().document("manifest")
    top = document["properties"]
    sections = {key: name for name in reversed(top) for key in top[name].get("properties", ())}
    return {
        **({key: f"it belongs under {name}:" for key, name in sections.items()} if with_sections else {}),
        **dict.fromkeys(top, "it belongs to the manifest, beside jobs:"),
        **dict.fromkeys(document["$defs"]["job"]["properties"], "it belongs to a job, beside request:"),
    }


Sentence = tuple[str, str | None]
"""What is wrong with a value, and a hint."""


def _type(error: _SchemaError) -> Sentence:
    is_bare = error.expected == "string" and isinstance(error.value, int | float)
    return type_mismatch(error.value, error.expected), "put it in quotes" if is_bare else None


def _enum(error: _SchemaError) -> Sentence:
    value, allowed = error.value, error.expected
    subject = f" for {error.subject}" if error.subject and error.subject != value else ""
    # Between numbers, as in sizes and ratios, the nearest spelling is not what was meant.
    is_word = not isinstance(value, str) or sum(map(str.isalpha, value)) > 2
    hint = did_you_mean(value, allowed) if is_word and len(allowed) > 1 else None
    # A long list would hide the hint.
    choices = "" if hint and len(allowed) > 12 else f" ({format_choices(allowed)})"
    return f"{format_value(value)} is not allowed{subject}{choices}", hint


def _const(error: _SchemaError) -> Sentence:
    return f"{format_value(error.value)} is not allowed (only {format_value(error.expected)})", None


def _bounds(error: _SchemaError) -> Sentence:
    return f"{format_value(error.value)} is not allowed ({format_bounds(error.schema)})", None


def _length(error: _SchemaError) -> Sentence:
    if not error.value:
        return "is empty", None
    comparison = "fewer than" if error.keyword.startswith("min") else "more than"
    noun = "characters" if isinstance(error.value, str) else "entries"
    return f"{len(error.value)} {noun}, {comparison} the {error.expected} allowed", None


def _items(error: _SchemaError) -> Sentence:
    low, high = error.schema.get("minItems", 0), error.schema.get("maxItems")
    count = len(error.value)
    bound = "exactly" if low == high else "at least" if count < low else "at most"
    verb = "is" if error.expected == 1 else "are"
    return f"{format_count(count, 'item')}, where {bound} {error.expected} {verb} needed", None


def _pattern(error: _SchemaError) -> Sentence:
    examples = error.schema.get("examples", ())
    hint = f"for example {format_value(examples[0])}" if examples else None
    return f"{format_value(error.value)} is not {error.schema.get('title') or 'what is expected here'}", hint


def _contains(error: _SchemaError) -> Sentence:
    is_over = error.keyword == "maxContains"
    return "too many items of one kind" if is_over else "a required item is missing", None


def _unique(_error: _SchemaError) -> Sentence:
    return "an item is there twice", None


def _forms(error: _SchemaError) -> Sentence:
    if error.keyword == "oneOf" and not error.context:
        return "fits more than one of the forms that exclude each other", None
    if all(form.validator == "required" for form in error.context):
        required: list[Any] = [form.validator_value for form in error.context]
        return f"needs {join_or([format_value(key) for keys in required for key in keys])}", None
    return f"{format_value(error.value)} has none of the forms that are allowed here", None


def _not_allowed(error: _SchemaError) -> Sentence:
    return f"{format_value(error.value)} is not allowed here", None


_SENTENCES: dict[str, Callable[[_SchemaError], Sentence]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _bounds),
    **dict.fromkeys(("minLength", "maxLength", "minProperties", "maxProperties"), _length),
    **dict.fromkeys(("minItems", "maxItems"), _items),
    **dict.fromkeys(("pattern", "format"), _pattern),
    **dict.fromkeys(("contains", "minContains", "maxContains"), _contains),
    "uniqueItems": _unique,
    **dict.fromkeys(("anyOf", "oneOf"), _forms),
}


Errors = Iterator[ValidationError]


def _check_warnings(validator: Any, entries: list[dict[str, Any]], instance: Any, _schema: Any) -> Errors:
    for entry in entries:
        if validator.evolve(schema=entry["when"]).is_valid(instance):
            yield ValidationError("", validator="x-warnings", validator_value=entry)


def _check_words(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if isinstance(instance, str) and (excess := WordLimit(**limit).excess(instance)):
        yield ValidationError(excess)


def _check_body_bytes(_validator: Any, limit: dict[str, int], instance: Any, _schema: Any) -> Errors:
    if finding := BodyLimit(**limit).finding(body_bytes(instance)):
        yield ValidationError("", validator_value=finding)


# Its stubs leave `extend` without types.
ExplainingValidator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"x-warnings": _check_warnings, "x-recommended-words": _check_words, "x-body-bytes": _check_body_bytes},
)
"""JSON Schema 2020-12 and the keywords of this program."""
