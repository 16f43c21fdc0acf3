"""
A process that measures videos: a path as a JSON line in, measures or the reason why there are none as a JSON line out.

A decoder that is given damaged files may crash, or hang; here it takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import os
import sys

import msgspec

from runner.checks.measure import measure

_NICENESS = 10
"""What was paid for, and what is next to be submitted, comes first."""


def main() -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    for line in sys.stdin.buffer:
        path = msgspec.json.decode(line, type=str)
        try:
            answer = msgspec.json.encode({"measures": measure(path)})
        except ValueError as error:
            answer = msgspec.json.encode({"problem": str(error)})
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
