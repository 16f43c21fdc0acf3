"""
JSON to text and back, with orjson where it is installed and the same result where it is not.

The digest of a request never goes through here: it must not depend on what is installed.
"""

from __future__ import annotations

import json

from runner.core.model import Json

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment,unused-ignore]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dumps(value: Json) -> bytes:
    """
    Write compact UTF-8 JSON.

    >>> dumps({"prompt": "\\u5c0f\\u732b", "seed": 1}).decode()
    '{"prompt":"小猫","seed":1}'
    """
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:
            # Integers beyond 64 bits, which only the standard library writes.
            pass
    # A lone surrogate has no UTF-8; it can only come from a hostile answer, and is shown as a question mark.
    return _encode(value).encode("utf-8", "replace")


def loads(text: bytes | str) -> Json:
    """
    Read JSON.

    Raises:
        ValueError: The text is not JSON.
    """
    if orjson is not None:
        return orjson.loads(text)
    return json.loads(text)
