"""
One schema in which a warning is as bad as an error, for the fast validator.

A request that fits it has nothing to be said about, so one call of a microsecond
settles nearly every job. What the fast validator can't count is settled by hand,
for the few requests with a text so long that there is something to count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONG_MEDIA = 100_000
"""Characters of a media field past which the size of the whole body has to be looked at."""


def strict(schema: dict[str, Any], *, model: str | None = None, refuses_long: bool = True) -> dict[str, Any]:
    """
    Copy a schema with its ``x-warnings`` turned into rules.

    With a model, rules about other models are left out. ``refuses_long`` refuses, with
    the rest, texts that would need counting by hand.

    >>> strict({"x-warnings": [{"when": {"const": 1}, "message": "one"}]})
    {'allOf': [{'not': {'const': 1}}]}
    """
    copy: dict[str, Any] = _strict(schema, refuses_long)
    rules = copy.pop("allOf", [])
    if kept := [rule for rule in rules if model is None or _concerns(rule, model)]:
        copy["allOf"] = kept
    return copy


def _strict(schema: Any, refuses_long: bool) -> Any:
    if isinstance(schema, list):
        return [_strict(item, refuses_long) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _strict(value, refuses_long) for key, value in schema.items() if not key.startswith("x-")}
    if warnings := [{"not": entry["when"]} for entry in schema.get("x-warnings", ())]:
        copy["allOf"] = [*copy.get("allOf", ()), *warnings]
    if refuses_long and (longest := _longest(schema)) is not None:
        copy["maxLength"] = longest
    return copy


def _longest(schema: Mapping[str, Any]) -> int | None:
    """Give the characters up to which a text needs no counting by hand; None where none ever does."""
    if "x-media" in schema:
        return LONG_MEDIA
    words = schema.get("x-recommended-words")
    # A word takes a character at least.
    return min(words.values()) if words else None


def _concerns(rule: Mapping[str, Any], model: str) -> bool:
    """Say whether a rule can matter to a request for this model."""
    condition = rule.get("if") or rule.get("not") or {}
    named = condition.get("properties", {}).get("model", {})
    return model == named.get("const", model) and model in named.get("enum", (model,))
