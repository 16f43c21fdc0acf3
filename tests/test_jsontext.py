"""JSON is read alike with and without the faster library."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
sys.modules["orjson"] = None
from runner.jsontext import loads
try:
    print(repr(loads(sys.argv[1].encode())))
except ValueError:
    print("refused")
"""


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
def test_the_standard_library_reads_the_same(text: str, expected: str) -> None:
    """A number that JSON does not have is refused, whatever is installed."""
    out = subprocess.run([sys.executable, "-c", _PROGRAM, text], capture_output=True, text=True, check=True)

    assert expected == out.stdout.strip()
