"""JSON in and out."""

from __future__ import annotations

import pytest

from runner.jsontext import dumps, loads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5, true, null, "小猫"]}', "{'a': [1, 2.5, True, None, '小猫']}"),
        ('{"a": NaN}', "refused"),
        ("[-Infinity]", "refused"),
        ("{", "refused"),
        ("", "refused"),
        (' {"a": 1}\r\n', "{'a': 1}"),
        ('{"a": 1}\n', "{'a': 1}"),
        ('{"a": 1} {', "refused"),
        ('{"a": 1}\u00a0', "refused"),
    ],
)
def test_reading(text: str, expected: str) -> None:
    """Blanks around the text are allowed; numbers that JSON does not have are refused."""
    try:
        read = repr(loads(text.encode()))
    except ValueError:
        read = "refused"

    assert expected == read


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 2**70}, b'{"a":1180591620717411303424}'),
        ({"a": "x\ud800"}, b'{"a":"x?"}'),
        (["小"], '["小"]'.encode()),
    ],
)
def test_writing(value: object, expected: bytes) -> None:
    """Integers of any size are written whole, and a lone surrogate as a question mark."""
    assert expected == dumps(value)
