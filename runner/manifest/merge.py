"""What a job inherits: mappings merge, lists and scalars replace, null removes."""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.model import Json


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """
    Lay one mapping over another and leave both as they are.

    >>> merge({"size": "720P", "style": {"a": 1, "b": 2}}, {"size": None, "style": {"b": 3}, "images": ["x"]})
    {'style': {'a': 1, 'b': 3}, 'images': ['x']}
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif type(value) is dict:
            below = merged.get(key)
            merged[key] = merge(below if type(below) is dict else {}, value)
        else:
            merged[key] = value
    return merged
