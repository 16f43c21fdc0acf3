"""
The schema of one document, ready to normalize and check requests.

Nearly every request has nothing wrong with it, and only that has to be fast: `strict_copy`
makes a plain JSON Schema that a compiled validator answers with yes or no, in a microsecond
or two. Only a request that it refuses is explained, by a slower validator.

Before that, each value is converted to the type that the document requires, if nothing is lost: people write
``seconds: 5`` in YAML where the document requires a string, a CSV cell is text where it requires a number, and one
default for the size may serve models that differ in its letter case. A value without an exact counterpart is left as
it is, for the schema to refuse. Documented defaults are never added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct

from runner.core.problem import Finding, PathPattern, find_values, text_schemas
from runner.schema.limits import (
    BodyLimit,
    MediaField,
    WordLimit,
    body_bytes,
    length_only_fields,
    media_fields,
)

Check = Callable[[Any], bool]

# No model has this name, and every document refuses it.
_ANY_OTHER = ""


class RequestSchema(Struct, eq=False, dict=True):
    """
    The schema of one document, compiled when it is first used.

    Attributes:
        name: As in the name of its file, such as ``wan-kf2v``.
        document: The schema itself; not to be changed.
    """

    name: str
    document: dict[str, Any]
    _checks: dict[str, Check] = {}

    def __repr__(self) -> str:
        return f"RequestSchema({self.name!r})"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that the catalog checks with this document, its own first."""
        alternative = self.document.get("x-alternative", {}).get("models", ())
        return (*self.document["x-models"], *alternative)

    @cached_property
    def media_fields(self) -> tuple[MediaField, ...]:
        """The fields that name an image, and what it may be."""
        return media_fields(self.document)

    def normalize(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        Convert each value to the type that the document requires, if nothing is lost.

        The request is never changed; it is returned itself if nothing needs converting.
        """
        return normalize(self._field_rules, request)

    def is_clean(self, request: dict[str, Any]) -> bool:
        """Return whether there is neither an error nor a warning, in a microsecond or two."""
        model = request.get("model")
        if model.__class__ is not str:
            return False
        fits = self._checks.get(model) or self._check_for(model)
        try:
            return fits(request) or (self._has_counted_texts and self._is_clean_if_long(request))
        except ValueError:
            # A key that is not text: nothing that JSON could carry.
            return False

    def length_only_fields(self, request: dict[str, Any]) -> dict[str, int]:
        """
        Return the keys of a clean request whose texts matter by their length alone, with the most characters.

        The request stays clean with any other text of at most that many characters that is not blank. It has no
        such key if a check of it takes more than a look at the lengths.
        """
        model = request["model"]
        if not self._check_for(model)(request):
            return {}
        return length_only_fields(strict_copy(self.document, model=model if model in self.models else None))

    def findings(self, request: dict[str, Any]) -> list[Finding]:
        """List everything that is wrong with a normalized request, errors and warnings, in words."""
        model = request.get("model") if isinstance(request, dict) else None
        return explain(self.document, request, subject=model if isinstance(model, str) else None)

    def body_finding(self, size_bytes: int) -> Finding | None:
        """Return what is wrong with a body of this size, or None; for a body that is larger than its request."""
        return self._body_limit.finding(size_bytes)

    @cached_property
    def _field_rules(self) -> FieldRules:
        return compile_rules(self.document)

    @cached_property
    def _body_limit(self) -> BodyLimit:
        return BodyLimit(**self.document["x-body-bytes"])

    @cached_property
    def _word_limits(self) -> tuple[tuple[PathPattern, WordLimit], ...]:
        keyword = "x-recommended-words"
        texts = text_schemas(self.document)
        return tuple((path, WordLimit(**text[keyword])) for path, text in texts if keyword in text)

    @cached_property
    def _has_counted_texts(self) -> bool:
        return bool(self._word_limits or self.media_fields)

    def _check_for(self, model: str) -> Check:
        """Return the check of one model, compiled once; models that the document does not name share one."""
        name = model if model in self.models else _ANY_OTHER
        if name not in self._checks:
            self._checks[name] = _compile(strict_copy(self.document, model=name or None))
        return self._checks[name]

    @cached_property
    def _fits_at_any_length(self) -> Check:
        return _compile(strict_copy(self.document, refuses_long=False))

    def _is_clean_if_long(self, request: dict[str, Any]) -> bool:
        """Check a request that was refused, perhaps only because a text in it is long."""
        return (
            self._fits_at_any_length(request)
            and not any(
                limit.excess(text)
                for path, limit in self._word_limits
                for _, text in find_values(request, path)
            )
            and self._body_limit.finding(body_bytes(request)) is None
        )


class ValueSchema(Struct, eq=False, dict=True):
    """
    The schema of a value that is not a request, such as the header of a manifest; compiled when it is first used.

    Attributes:
        root: What the whole value is called in messages.
    """

    schema: dict[str, Any]
    root: str

    @cached_property
    def _check(self) -> Check:
        return _compile(self.schema)

    def findings(self, value: Any) -> list[Finding]:
        """List everything that is wrong with a value; a valid one takes a microsecond or two."""
        try:
            if self._check(value):
                return []
        except ValueError:
            # The fast validator can't represent keys that are not text, nor, in its older versions, long numbers.
            pass
        return explain(self.schema, value, root=self.root)


def _compile(schema: dict[str, Any]) -> Check:
    """Compile a plain JSON Schema; its check raises ValueError for a value that it can't represent."""
    # A command that checks nothing does not need it.
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema).is_valid


def explain(
    schema: dict[str, Any], instance: Any, *, root: str = "request", subject: str | None = None
) -> list[Finding]:
    """List everything that is wrong with a value; see `runner.schema.explain`."""
    # This import takes longer than the rest of a `validate` of a small manifest without problems.
    from runner.schema import explain as explaining

    return explaining.explain(schema, instance, root=root, subject=subject)


LONG_MEDIA_CHARS = 100_000
"""A media field that is longer may make the body too large, so that its size has to be computed."""


def strict_copy(
    schema: dict[str, Any], *, model: str | None = None, refuses_long: bool = True
) -> dict[str, Any]:
    """
    Copy a schema with its ``x-warnings`` turned into rules.

    Args:
        model: If given, rules about other models are left out.
        refuses_long: Whether to refuse texts so long that words or bytes have to be counted.

    >>> strict_copy({"x-warnings": [{"when": {"const": 1}, "message": "one"}]})
    {'allOf': [{'not': {'const': 1}}]}
    """
    copy: dict[str, Any] = _strict(schema, refuses_long)
    rules = copy.pop("allOf", [])
    if applying := [rule for rule in rules if model is None or _applies_to(rule, model)]:
        copy["allOf"] = applying
    return copy


def _strict(schema: Any, refuses_long: bool) -> Any:
    if isinstance(schema, list):
        return [_strict(item, refuses_long) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _strict(value, refuses_long) for key, value in schema.items() if not key.startswith("x-")}
    if warnings := [{"not": entry["when"]} for entry in schema.get("x-warnings", ())]:
        copy["allOf"] = [*copy.get("allOf", ()), *warnings]
    if refuses_long and (limit := _max_uncounted_chars(schema)) is not None:
        copy["maxLength"] = limit
    return copy


def _max_uncounted_chars(schema: Mapping[str, Any]) -> int | None:
    """Return the characters up to which nothing has to be counted; None if nothing ever has."""
    if "x-media" in schema:
        return LONG_MEDIA_CHARS
    words = schema.get("x-recommended-words")
    # A word has at least one character.
    return min(words.values()) if words else None


def _applies_to(rule: Mapping[str, Any], model: str) -> bool:
    """Return whether a rule can matter to a request for this model."""
    condition = rule.get("if") or rule.get("not") or {}
    models = condition.get("properties", {}).get("model", {})
    return model == models.get("const", model) and model in models.get("enum", (model,))


Convert = Callable[[Any], Any]
"""Returns the same object if there is nothing to convert."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
# Spreadsheets and data frames write whole numbers with a decimal point.
_WHOLE = re.compile(rf"({_INTEGER.pattern})(?:\.0+)?")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_BOOLEANS = {"true": True, "false": False}

# Above this a float no longer holds every whole number.
_EXACT_FLOATS = 2**53


class FieldRule(NamedTuple):
    """
    How one value is converted; a tuple, since a million jobs unpack ten of them each.

    Attributes:
        type: The class of a value that needs no conversion; None if each must be looked into.
        allowed: The values of this class that need none; None for all of them.
    """

    type: type | None
    allowed: frozenset[str] | None
    convert: Convert


FieldRules = dict[str, FieldRule]
"""The rules of a mapping by key; keys that never need one are absent."""


def compile_rules(schema: Mapping[str, Any]) -> FieldRules:
    """Compile, once for a schema, which of its properties may need a conversion, and which."""
    rules = ((key, _rule(child)) for key, child in schema.get("properties", {}).items())
    return {key: rule for key, rule in rules if rule is not None}


def normalize(rules: FieldRules, value: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the values of a mapping. It is never changed; the same object is returned if nothing needs converting.

    >>> rules = compile_rules({"properties": {"seed": {"type": "integer"}, "size": {"type": "string", "enum": ["720P"]}}})
    >>> normalize(rules, {"seed": "42", "size": "720p"})
    {'seed': 42, 'size': '720P'}
    """
    changed: dict[str, Any] | None = None
    for key, old in value.items():
        rule = rules.get(key)
        if rule is None:
            continue
        expected_type, allowed, convert = rule
        if old.__class__ is expected_type and (allowed is None or old in allowed):
            continue
        new = convert(old)
        if new is not old:
            if changed is None:
                changed = value.copy()
            changed[key] = new
    return value if changed is None else changed


def _rule(schema: Mapping[str, Any]) -> FieldRule | None:
    match schema.get("type"):
        case "integer":
            return FieldRule(int, None, _to_integer)
        case "number":
            return FieldRule(float, None, _to_number)
        case "boolean":
            return FieldRule(bool, None, _to_boolean)
        case "string" if "enum" in schema:
            return FieldRule(str, frozenset(schema["enum"]), _to_choice(schema["enum"]))
        case "array" if isinstance(schema.get("items"), dict):
            return _list(compile_rules(schema["items"]))
        case "object":
            return _mapping(compile_rules(schema))
        case _:
            return None


def _to_integer(value: Any) -> Any:
    if value.__class__ is str and (whole := _WHOLE.fullmatch(value.strip())):
        return int(whole[1])
    if value.__class__ is float and -_EXACT_FLOATS < value < _EXACT_FLOATS and value.is_integer():
        return int(value)
    return value


def _to_number(value: Any) -> Any:
    if value.__class__ is str and _DECIMAL.fullmatch(value.strip()):
        return float(value)
    return _to_integer(value) if value.__class__ is str else value


def _to_boolean(value: Any) -> Any:
    return _BOOLEANS.get(value.strip().lower(), value) if value.__class__ is str else value


def _to_choice(names: list[str]) -> Convert:
    by_lower = {name.lower(): name for name in names}
    is_digits = all(_INTEGER.fullmatch(name) for name in names)
    exact = frozenset(names)

    def convert(value: Any) -> Any:
        if value.__class__ is str and value in exact:
            return value
        if value.__class__ is str and (name := by_lower.get(value.strip().lower())) is not None:
            return name
        whole = _to_integer(value) if is_digits else value
        if (
            is_digits
            and whole.__class__ is int
            and -_EXACT_FLOATS < whole < _EXACT_FLOATS
            and str(whole) != value
        ):
            return str(whole)
        return value

    return convert


def _mapping(rules: FieldRules) -> FieldRule | None:
    def convert(value: Any) -> Any:
        return normalize(rules, value) if value.__class__ is dict else value

    return FieldRule(None, None, convert) if rules else None


def _list(rules: FieldRules) -> FieldRule | None:
    def convert(value: Any) -> Any:
        if value.__class__ is not list:
            return value
        changed: list[Any] | None = None
        for index, old in enumerate(value):
            if old.__class__ is dict and (new := normalize(rules, old)) is not old:
                if changed is None:
                    changed = value.copy()
                changed[index] = new
        return value if changed is None else changed

    return FieldRule(None, None, convert) if rules else None
