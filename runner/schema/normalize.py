"""
Convert each value to the type that its document requires, if nothing is lost.

People write ``seconds: 5`` in YAML where the document requires a string, a CSV cell
is text where it requires a number, and one default for the size may serve models that
differ in its letter case. A value without an exact counterpart is left as it is, for
the schema to refuse. Documented defaults are never added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
