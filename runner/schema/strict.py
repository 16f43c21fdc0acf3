"""
One schema in which a warning is as bad as an error, for the fast validator.

A request that fits it has nothing to be said about, so one call of a microsecond
settles nearly every job. What the fast validator can't count is left to its caller.
"""

from __future__ import annotations

from typing import Any

LONG_MEDIA = 100_000
"""Characters of a media field past which the size of the whole body has to be looked at."""


def strict(schema: Any) -> Any:
    """
    Copy a schema with its ``x-warnings`` turned into rules, and long media refused.

    >>> strict({"x-warnings": [{"when": {"const": 1}, "message": "one"}]})
    {'allOf': [{'not': {'const': 1}}]}
    """
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: strict(value) for key, value in schema.items() if not key.startswith("x-")}
    warnings = [{"not": entry["when"]} for entry in schema.get("x-warnings", ())]
    if warnings:
        copy["allOf"] = [*copy.get("allOf", ()), *warnings]
    if "x-media" in schema:
        copy["maxLength"] = LONG_MEDIA
    return copy
