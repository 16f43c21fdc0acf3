"""Where a value is in a request: paths, patterns of paths, and how people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

JsonPath = tuple[str | int, ...]
"""Keys and indices from the root."""

PathPattern = tuple[str, ...]
"""Keys from the root; ``*`` matches every item of a list."""


def format_path(path: JsonPath) -> str:
    """
    Write a path as people do.

    >>> format_path(("media", 0, "url"))
    'media[0].url'
    """
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def find_values(instance: Any, pattern: PathPattern) -> Iterator[tuple[JsonPath, Any]]:
    """
    Yield every value that a pattern matches, with its path; what is absent or of another shape is skipped.

    >>> list(find_values({"media": [{"url": "a"}, {"text": "b"}]}, ("media", "*", "url")))
    [(('media', 0, 'url'), 'a')]
    """
    if not pattern:
        yield (), instance
        return
    step, rest = pattern[0], pattern[1:]
    children: Iterable[tuple[str | int, Any]] = ()
    if step == "*" and isinstance(instance, list):
        children = enumerate(instance)
    elif isinstance(instance, dict) and step in instance:
        children = ((step, instance[step]),)
    for key, child in children:
        for path, value in find_values(child, rest):
            yield (key, *path), value


def text_schemas(
    schema: dict[str, Any], pattern: PathPattern = ()
) -> Iterator[tuple[PathPattern, dict[str, Any]]]:
    """Yield the subschema of every text in a schema, with its pattern, in the schema's order."""
    if schema.get("type") == "string":
        yield pattern, schema
    for key, child in schema.get("properties", {}).items():
        yield from text_schemas(child, (*pattern, key))
    if isinstance(items := schema.get("items"), dict):
        yield from text_schemas(items, (*pattern, "*"))
