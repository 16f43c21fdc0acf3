"""
Parse what is nearly JSON: an id in it is still the id of a task that was paid for.

Answers were seen with a byte order mark, raw control characters, a NaN, half of a surrogate pair, another encoding,
a second JSON value behind the first, or other bytes behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from runner import jsontext
from runner.core.model import Json
from runner.core.wire_vocabulary import ID_KEYS, layers_in

_DECODER = json.JSONDecoder(strict=False)
_MAX_VALUES = 8
"""JSON values that are read one behind the other."""


def read_json(body: bytes) -> Json:
    r"""
    Parse a body as JSON; None if it is not JSON, or is ``null``.

    Of several values one behind the other the first that has an id is returned, else the first. Too deeply nested
    JSON counts as no JSON.

    >>> read_json(b'{"id": "task_1"}\n{"code": "x"}')
    {'id': 'task_1'}
    """
    try:
        return jsontext.loads(body)
    except (ValueError, RecursionError):
        values = list(_read_values(decode(body)))
    return next(filter(_has_id, values), values[0] if values else None)


def decode(body: bytes) -> str:
    """
    Decode a body: as what its first bytes say, else as UTF-8, else as GB 18030, else with replacement characters.

    >>> decode("提示词".encode("gb18030"))
    '提示词'
    """
    encoding = json.detect_encoding(body) if body[:4] else "utf-8"
    for name in dict.fromkeys((encoding, "utf-8", "gb18030")):
        try:
            return body.decode(name).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return body.decode("utf-8", "replace")


def _read_values(text: str) -> Iterator[Json]:
    start = 0
    for _ in range(_MAX_VALUES):
        start += len(text[start:]) - len(text[start:].lstrip())
        try:
            value, start = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return
        yield value


def _has_id(value: Json) -> bool:
    if not isinstance(value, dict):
        return False
    return any(node.get(key) for node in (value, *layers_in(value)) for key in ID_KEYS)
