"""
What is between the braces of a placeholder: ``${name}``, ``${a.b}`` for a value inside another, ``${x:-default}``.

A default takes the place of a value that is absent, null or the empty text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from operator import itemgetter

from msgspec import Struct

from runner.core.model import Json

PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
LITERAL = "$${"

Values = Mapping[str, Json]


class Placeholder(Struct, frozen=True):
    """
    A placeholder.

    Attributes:
        name: A name, or the path of a value such as ``style.name``.
        default: Text instead of a value that is absent; None if there is none.
    """

    name: str
    default: str | None = None

    def root(self, names: Collection[str]) -> str | None:
        """Return the one of some names that the placeholder's name is, or begins with; None if it is none of them."""
        end = len(self.name)
        while end > 0:
            if self.name[:end] in names:
                return self.name[:end]
            end = self.name.rfind(".", 0, end)
        return None

    def getter(self, *, is_nested: bool) -> Callable[[Values], Json]:
        """
        Return a function that finds the value. What is absent, and has no default, is a ``KeyError``.

        Args:
            is_nested: Whether the value may be inside another one.
        """
        return itemgetter(self.name) if self.default is None and not is_nested else self.find

    def find(self, values: Values) -> Json:
        """Find the value among others; see `getter`."""
        try:
            value = find_value(values, self.name)
        except KeyError:
            if self.default is None:
                raise KeyError(self.name) from None
            value = None
        # An empty default leaves the field out, as an empty cell does.
        return (self.default or None) if value in (None, "") and self.default is not None else value


def parse_placeholder(text: str) -> Placeholder:
    """
    Parse what is between the braces.

    >>> parse_placeholder("style.name:-plain")
    Placeholder(name='style.name', default='plain')
    """
    name, mark, default = text.partition(":-")
    return Placeholder(name.strip(), default.strip() if mark else None)


def find_value(value: Json, path: str) -> Json:
    """
    Find a value by its key, or by a path of keys and indices; inside a null everything is null.

    >>> find_value({"a": {"b": [5]}, "a.c": 6}, "a.b.0"), find_value({"a.c": 6}, "a.c"), find_value({"a": None}, "a.x")
    (5, 6, None)

    Raises:
        KeyError: There is none.
    """
    if isinstance(value, dict):
        end = len(path)
        while end > 0:
            if (key := path[:end]) in value:
                return value[key] if end == len(path) else find_value(value[key], path[end + 1 :])
            end = path.rfind(".", 0, end)
    elif value is None:
        return None
    elif isinstance(value, list):
        index, _, rest = path.partition(".")
        if index.isdecimal() and int(index) < len(value):
            item = value[int(index)]
            return find_value(item, rest) if rest else item
    raise KeyError(path)
