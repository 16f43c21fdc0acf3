"""
JSON to text and back, with orjson where it is installed and the same result where it is not.

The digest of a request never goes through here: it must not depend on what is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.core.model import Json


def _load(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


fast_json = _load("orjson")

_ENDS = ("", "\n")
"""What nearly every text ends in."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dumps(value: Json) -> bytes:
    """
    Write compact UTF-8 JSON.

    >>> dumps({"prompt": "小猫", "seed": 1}).decode()
    '{"prompt":"小猫","seed":1}'
    """
    if fast_json is not None:
        try:
            return bytes(fast_json.dumps(value))
        except TypeError:
            # Integers beyond 64 bits, which only the standard library writes.
            pass
    # A lone surrogate has no UTF-8; it can only come from a hostile answer, and is shown as a question mark.
    return _encode(value).encode("utf-8", "replace")


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")


# The library reads NaN and infinities unless it is told otherwise; orjson and the API do not.
_decoder = json.JSONDecoder(parse_constant=_refuse)
_read_first = _decoder.raw_decode


def _loads(text: bytes | str) -> Json:
    if not isinstance(text, str):
        text = text.decode()
    # `decode` looks for blanks on both sides with regular expressions, which takes longer than reading a row does.
    try:
        value, end = _read_first(text)
        if text[end:] in _ENDS:
            return value
    except ValueError:
        # There may be nothing wrong but a blank at the beginning.
        pass
    return _decoder.decode(text)


loads: Callable[[bytes | str], Json] = _loads if fast_json is None else fast_json.loads
"""
Read JSON.

Raises:
    ValueError: The text is not JSON.
"""
