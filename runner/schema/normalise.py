"""
Give each value the type that its document wants, where nothing is lost by it.

YAML's authors write ``seconds: 5`` where the document wants a string, a CSV cell
is text where it wants a number, and one default for the size may serve models that
disagree about its letter case. What has no exact counterpart is left as it is, for
the schema to refuse. Documented defaults are never put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Fix = Callable[[Any], Any]
"""Gives back the same object where there is nothing to mend."""

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_TRUTH = {"true": True, "false": False}

# Beyond this a float no longer holds every whole number.
_EXACT = 2**53


class FieldRule(NamedTuple):
    """
    How one value is mended; a tuple, since a million jobs unpack ten of them each.

    Attributes:
        type: The class of a value that needs no mending; None where each must be looked into.
        allowed: Those that need none; None where the class alone says it.
    """

    type: type | None
    allowed: frozenset[str] | None
    fix: Fix


FieldRules = dict[str, FieldRule]
"""A rule for every key of a mapping that may need one."""


def compile_rules(schema: Mapping[str, Any]) -> FieldRules:
    """Work out, once for a schema, which of its properties may need mending and how."""
    rules = ((key, _rule(child)) for key, child in schema.get("properties", {}).items())
    return {key: rule for key, rule in rules if rule is not None}


def apply(rules: FieldRules, value: dict[str, Any]) -> dict[str, Any]:
    """
    Mend a mapping; the same object comes back where nothing changes, and nothing in it is ever altered.

    >>> rules = compile_rules({"properties": {"seed": {"type": "integer"}, "size": {"type": "string", "enum": ["720P"]}}})
    >>> apply(rules, {"seed": "42", "size": "720p"})
    {'seed': 42, 'size': '720P'}
    """
    changed: dict[str, Any] | None = None
    for key, old in value.items():
        rule = rules.get(key)
        if rule is None:
            continue
        wanted, allowed, fix = rule
        if old.__class__ is wanted and (allowed is None or old in allowed):
            continue
        new = fix(old)
        if new is not old:
            if changed is None:
                changed = value.copy()
            changed[key] = new
    return value if changed is None else changed


def _rule(schema: Mapping[str, Any]) -> FieldRule | None:
    match schema.get("type"):
        case "integer":
            return FieldRule(int, None, _whole)
        case "number":
            return FieldRule(float, None, _number)
        case "boolean":
            return FieldRule(bool, None, _truth)
        case "string" if "enum" in schema:
            return FieldRule(str, frozenset(schema["enum"]), _choice(schema["enum"]))
        case "array" if isinstance(schema.get("items"), dict):
            return _list(compile_rules(schema["items"]))
        case "object":
            return _mapping(compile_rules(schema))
        case _:
            return None


def _whole(value: Any) -> Any:
    if value.__class__ is str and _WHOLE.fullmatch(value):
        return int(value)
    if value.__class__ is float and -_EXACT < value < _EXACT and value.is_integer():
        return int(value)
    return value


def _number(value: Any) -> Any:
    if value.__class__ is str and _DECIMAL.fullmatch(value):
        return float(value)
    return _whole(value) if value.__class__ is str else value


def _truth(value: Any) -> Any:
    return _TRUTH.get(value.lower(), value) if value.__class__ is str else value


def _choice(names: list[str]) -> Fix:
    by_lower = {name.lower(): name for name in names}
    is_digits = all(_WHOLE.fullmatch(name) for name in names)

    def fix(value: Any) -> Any:
        if value.__class__ is str:
            return by_lower.get(value.lower(), value)
        if is_digits and value.__class__ is int and -_EXACT < value < _EXACT:
            return str(value)
        return value

    return fix


def _mapping(rules: FieldRules) -> FieldRule | None:
    def fix(value: Any) -> Any:
        return apply(rules, value) if value.__class__ is dict else value

    return FieldRule(None, None, fix) if rules else None


def _list(rules: FieldRules) -> FieldRule | None:
    def fix(value: Any) -> Any:
        if value.__class__ is not list:
            return value
        changed: list[Any] | None = None
        for index, old in enumerate(value):
            if old.__class__ is dict and (new := apply(rules, old)) is not old:
                if changed is None:
                    changed = value.copy()
                changed[index] = new
        return value if changed is None else changed

    return FieldRule(None, None, fix) if rules else None
