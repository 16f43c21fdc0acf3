"""
The values of YAML scalars by the core schema of YAML 1.2.

PyYAML's own rules are those of YAML 1.1, where `16:9` is the number 969 and `no` is
false. By the core schema (YAML 1.2.2, 10.3.2) both are text, and so are dates.

Text that a ``#`` cuts short, and text that begins as an anchor does, are valid, but not what their author meant; both
would be paid for, so they get a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from yaml.events import ScalarEvent

from runner.core.model import Json

NON_TEXT_STARTS = frozenset("-+.0123456789~nNtTfF")
"""The first characters of plain scalars that are not text; the empty one is not text either."""

_WORDS: dict[str, Json] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"(?P<integer>[-+]?[0-9]+)"
    r"|(?P<based>0o[0-7]+|0x[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<not_finite>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
    re.ASCII,
)

MAX_DIGITS = 1000
"""Longer numbers are mistakes, and take Python quadratic time."""

CORE_TAGS = {
    f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")
}
"""The tags of types that JSON has, by their full names, as in the parser's events."""


@lru_cache(maxsize=2048)
def resolve_plain(text: str) -> Json:
    """
    Return the value of a plain (unquoted) scalar by the core schema of YAML 1.2.

    >>> [resolve_plain(text) for text in ("16:9", "no", "2026-11-21", "1_000", "5", "0o17", "1e3", "~")]
    ['16:9', 'no', '2026-11-21', '1_000', 5, 15, 1000.0, None]

    Raises:
        ValueError: It is a number that JSON does not have.
    """
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too long; quote it if it is text")
    number_form = match.lastgroup
    if number_form == "integer":
        return int(text)
    if number_form == "based":
        return int(text, 0)
    value = float(text) if number_form == "float" else math.inf
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is a number that JSON does not have; quote it if it is text")
    return value


def resolve_tagged(tag: str, text: str) -> Json:
    """
    Return the value of a scalar with a tag, such as ``!!str 5``.

    >>> resolve_tagged("tag:yaml.org,2002:str", "5"), resolve_tagged("tag:yaml.org,2002:float", "5")
    ('5', 5.0)

    Raises:
        ValueError: The tag is not a core one, or the text is not of its type.
    """
    if tag == "!":
        return text
    name = CORE_TAGS.get(tag)
    if name is None:
        raise ValueError(unsupported_tag_message(tag))
    if name == "str":
        return text
    value = resolve_plain(text)
    if name == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    types = {"int": int, "float": float, "bool": bool, "null": type(None)}
    if type(value) is not types.get(name):
        raise ValueError(f"the value after !!{name} is not of that type")
    return value


def unsupported_tag_message(tag: str) -> str:
    """Describe an unknown tag, which is often text that should be quoted."""
    shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
    return f"the tag {shown} is not supported (text that begins with '!' must be quoted)"


HASH_HINT = "quote the text if the '#' belongs to it, or write a blank behind the '#'"
ANCHOR_HINT = "quote the text if it begins with '&'"

Mark = tuple[int, int]
"""A line and a column, both from 0."""


def cut_texts(events: Iterable[Any], hashes: frozenset[Mark]) -> Iterator[tuple[Mark, str]]:
    """Yield the mark of each hash that ends a plain text, and the text before it."""
    for event in events:
        if event.__class__ is ScalarEvent and not event.style and is_text(event.value):
            end: Any = event.end_mark
            if (end.line, end.column) in hashes:
                yield (end.line, end.column + 1), event.value


def is_text(plain: str) -> bool:
    """Return whether a plain scalar is text, and no number or word of YAML."""
    if not plain or plain[0] not in NON_TEXT_STARTS:
        return bool(plain)
    try:
        return isinstance(resolve_plain(plain), str)
    except ValueError:
        return False
