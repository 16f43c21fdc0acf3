"""Problems in a manifest, with their positions, and the paths of values in a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct


class Severity(StrEnum):
    """With an error nothing is sent; with a warning everything is."""

    ERROR = "error"
    WARNING = "warning"


class Position(NamedTuple):
    """
    A position in a file. Line and column count from 1; 0 if unknown.

    A tuple for the same reason as `JobSpec`: every job has one.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class Finding(Struct, frozen=True):
    """
    A problem inside a value of the manifest, such as a request, whose position is not yet known.

    Attributes:
        path: Keys and indices from the root of the value.
        hint: What would be right, such as ``did you mean 'seed'?``, or None.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None
    severity: Severity = Severity.ERROR


class Problem(Struct, frozen=True):
    """
    A problem with its position.

    Attributes:
        job: The job, such as ``jobs[3] "grass-2"``; None for the manifest itself.
        path: Where in the job, such as ``media[0].url``; empty for the job as a whole.
    """

    severity: Severity
    position: Position
    message: str
    job: str | None = None
    path: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.position}: "
        if self.severity is Severity.WARNING:
            place += "warning: "
        if self.job:
            place += f"{self.job}: "
        return f"{place}{self.message}" + (f"; {self.hint}" if self.hint else "")


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
