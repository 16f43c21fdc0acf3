"""
Values as YAML 1.2 that any reader gives back as they were, whichever version of YAML it thinks it reads.

Text is written plain only where no version takes it for anything else; otherwise
double-quoted, in which JSON's escapes are YAML's too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring

from runner.core.model import Json

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_LONGEST_PLAIN = 100
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
# What YAML does not call printable, and the line breaks of YAML 1.1, which it folds.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def flow(value: Json) -> str:
    """
    Write a value on one line.

    >>> flow({"ratio": "16:9", "ok": "no", "count": 5, "tags": ["a", "小猫"], "none": None})
    '{ratio: "16:9", ok: "no", count: 5, tags: [a, "小猫"], none: null}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{text(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return text(value)
    return _number(value) if isinstance(value, float) else json.dumps(value)


def _number(value: float) -> str:
    """
    Write a number that is not whole.

    >>> _number(0.5), _number(1e-7), _number(float("-inf"))
    ('0.5', '1.0e-07', '-.inf')
    """
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    # YAML 1.1 takes 1e-07 for text: its numbers have a point.
    mantissa, mark, exponent = repr(value).partition("e")
    return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else repr(value)


def text(value: str) -> str:
    r"""
    Write text on one line, quoted unless it can't be anything else.

    >>> print(text("wan2.7-i2v"), text("no"), text("a\nb"), text("2026-11-21"))
    wan2.7-i2v "no" "a\nb" "2026-11-21"
    """
    return _short_text(value) if len(value) <= _LONGEST_PLAIN else _quoted(value)


# A million jobs have the same few keys, models and sizes.
@lru_cache(maxsize=256)
def _short_text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return _quoted(value)


def _quoted(value: str) -> str:
    return printable(encode_basestring(value))


def printable(line: str) -> str:
    """Escape what YAML allows nowhere, not even in a comment; a lone surrogate, which has no UTF-8, becomes ``?``."""
    if line.isprintable():
        return line
    line = _LONE_SURROGATE.sub("?", line)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)
