"""
JSON to bytes and back.

The digest of a request is not computed from this: its text must never change (see `manifest.unchecked_job`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_encode_leniently = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dumps(value: Any) -> bytes:
    """
    Encode as compact UTF-8 JSON.

    >>> dumps({"prompt": "小猫", "seed": 1}).decode()
    '{"prompt":"小猫","seed":1}'
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8. It can only come from a hostile answer, and is written as a question mark.
        return _encode_leniently(value).encode("utf-8", "replace")


loads: Callable[[bytes | str], Any] = msgspec.json.Decoder().decode
"""
Decode JSON.

Raises:
    ValueError: The text is not JSON.
"""
