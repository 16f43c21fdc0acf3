"""Where a value stands in a request: paths, patterns of paths, and how a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

JsonPath = tuple[str | int, ...]
"""Keys and indices from the root."""

PathPattern = tuple[str, ...]
"""Keys from the root; ``*`` stands for every item of a list."""


def dotted(path: Sequence[str | int]) -> str:
    """
    Write a path as a person does.

    >>> dotted(("media", 0, "url"))
    'media[0].url'
    """
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def find(instance: Any, pattern: PathPattern) -> Iterator[tuple[JsonPath, Any]]:
    """
    Walk to every value that a pattern means; what is absent or of another shape is passed over.

    >>> list(find({"media": [{"url": "a"}, {"text": "b"}]}, ("media", "*", "url")))
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
    for key, value in children:
        for path, found in find(value, rest):
            yield (key, *path), found


def strings(
    schema: dict[str, Any], pattern: PathPattern = ()
) -> Iterator[tuple[PathPattern, dict[str, Any]]]:
    """Walk through a schema to every place where the value is described as text, in its own order."""
    if schema.get("type") == "string":
        yield pattern, schema
    for key, child in schema.get("properties", {}).items():
        yield from strings(child, (*pattern, key))
    if isinstance(items := schema.get("items"), dict):
        yield from strings(items, (*pattern, "*"))
