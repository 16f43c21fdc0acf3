"""
What a plain scalar means by the core rules of YAML 1.2.

PyYAML's own rules are those of YAML 1.1, where `16:9` is the number 969 and `no` is
false. By the core rules (YAML 1.2.2, 10.3.2) both are text, and so are dates.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from runner.core.model import Json

NON_TEXT_STARTS = frozenset("-+.0123456789~nNtTfF")
"""The first characters of all plain scalars that are not text; so is the empty one."""

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
"""Numbers that are longer are mistakes, and take Python quadratic time."""

CORE_TAGS = {
    f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")
}
"""The tags that say no more than JSON can: by their full names, as the parser gives them."""


@lru_cache(maxsize=2048)
def resolve_plain(text: str) -> Json:
    """
    Read a plain (unquoted) scalar by the core rules of YAML 1.2.

    >>> [resolve_plain(text) for text in ("16:9", "no", "2026-11-21", "1_000", "5", "0o17", "1e3", "~")]
    ['16:9', 'no', '2026-11-21', '1_000', 5, 15, 1000.0, None]

    Raises:
        ValueError: It is a number that JSON cannot carry.
    """
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too long; quote it if it is text")
    kind = match.lastgroup
    if kind == "integer":
        return int(text)
    if kind == "based":
        return int(text, 0)
    value = float(text) if kind == "float" else math.inf
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is a number that JSON cannot carry; quote it if it is text")
    return value


def resolve_tagged(tag: str, text: str) -> Json:
    """
    Read a scalar that says what it is, such as ``!!str 5``.

    >>> resolve_tagged("tag:yaml.org,2002:str", "5"), resolve_tagged("tag:yaml.org,2002:float", "5")
    ('5', 5.0)

    Raises:
        ValueError: The tag is none of the core ones, or the text is none of its kind.
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
    kinds = {"int": int, "float": float, "bool": bool, "null": type(None)}
    if type(value) is not kinds.get(name):
        raise ValueError(f"the value after !!{name} is not of that kind")
    return value


def unsupported_tag_message(tag: str) -> str:
    """Say that a tag means nothing here; it is often no tag at all, but text that was to be quoted."""
    shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
    return f"the tag {shown} is not supported (a text that begins with '!' must be quoted)"
