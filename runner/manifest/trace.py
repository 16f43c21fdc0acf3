"""Positions in a value, found again from the events that it was built from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from yaml.events import MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

_STARTS = (MappingStartEvent, SequenceStartEvent)
_ENDS = (MappingEndEvent, SequenceEndEvent)


def find(trace: Sequence[Any], path: Sequence[str | int]) -> tuple[Any, Any]:
    """
    Walk to a value, or to its nearest ancestor that is written out.

    What an alias or a merge key brings in stands elsewhere: the walk ends at the alias.

    Returns:
        The events of the key (or of the value itself, where it has none) and of the value.
    """
    at = key_at = 0
    for step in path:
        found = child(trace, at, step)
        if found is None:
            break
        key_at, at = found
    return trace[key_at], trace[at]


def child(trace: Sequence[Any], start: int, step: str | int) -> tuple[int, int] | None:
    """Give the places of the key and the value of one step down, or None where it is not written out."""
    if isinstance(trace[start], MappingStartEvent):
        merge = None
        children = _children(trace, start)
        for key_at, value_at in zip(children, children, strict=False):
            key = trace[key_at].value if isinstance(trace[key_at], ScalarEvent) else None
            if key == step:
                return key_at, value_at
            if key == "<<":
                merge = key_at, value_at
        return merge
    if isinstance(trace[start], SequenceStartEvent):
        for place, value_at in enumerate(_children(trace, start)):
            if place == step:
                return value_at, value_at
    return None


def _children(trace: Sequence[Any], start: int) -> Iterator[int]:
    """Give the places of the values right inside a collection; for a mapping, keys and values in turn."""
    depth = 0
    for at in range(start + 1, len(trace)):
        if isinstance(trace[at], _ENDS):
            if depth == 0:
                return
            depth -= 1
            continue
        if depth == 0:
            yield at
        if isinstance(trace[at], _STARTS):
            depth += 1
