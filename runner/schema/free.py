"""
Texts that a schema asks nothing of but their length, such as most prompts.

Where requests differ in these alone, what the validator said of one it would say of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ABOUT_LENGTH = frozenset({"type", "description", "minLength", "maxLength", "allOf"})
_NO_RULES = frozenset({"$schema", "$id", "$comment", "title", "description", "required"})
_REACHES_THE_UNNAMED = frozenset(
    {"$ref", "$dynamicRef", "patternProperties", "additionalProperties", "unevaluatedProperties"}
)
"""Keywords whose rules apply to keys that they do not name."""


def free_texts(schema: Mapping[str, Any]) -> dict[str, int]:
    """
    Find the keys whose texts are all alike to a strict schema, from one character up to how many.

    >>> prompt = {"type": "string", "minLength": 1, "maxLength": 500}
    >>> free_texts({"properties": {"prompt": prompt, "seed": {"type": "integer"}}})
    {'prompt': 500}
    """
    own = {"properties", "additionalProperties"}
    named = _names({key: rules for key, rules in schema.items() if key not in own})
    if not named.isdisjoint(_REACHES_THE_UNNAMED):
        return {}
    lengths = {key: _longest(rule) for key, rule in schema["properties"].items() if key not in named}
    return {key: longest for key, longest in lengths.items() if longest is not None}


def _names(rules: Any) -> set[str]:
    """Gather every text in some rules, except where they only ask whether a key is there."""
    if isinstance(rules, dict):
        return {
            *rules,
            *(name for key, rule in rules.items() if key not in _NO_RULES for name in _names(rule)),
        }
    if isinstance(rules, list):
        return {name for rule in rules for name in _names(rule)}
    return {rules} if isinstance(rules, str) else set()


def _longest(rule: Mapping[str, Any]) -> int | None:
    """Give the characters up to which a text is as good as any other; None where more than its length matters."""
    if rule.get("type") != "string" or not rule.keys() <= _ABOUT_LENGTH or rule.get("minLength", 0) > 1:
        return None
    limits = [rule["maxLength"]] if "maxLength" in rule else []
    for refused in rule.get("allOf", ()):
        match refused:
            case {"not": {"type": "string", "minLength": int(limit), **others}} if not others:
                limits.append(limit - 1)
            case _:
                return None
    return min(limits, default=None)
