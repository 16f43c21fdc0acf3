"""A bug of ours: what to say, and where its trace is."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Sequence

from runner.cli.console import say
from runner.core.redact import clean, redact

EXIT_CODE = 3


def show_bug(error: Exception, arguments: Sequence[str]) -> int:
    """
    Say that it was our fault, keep the trace in a file, and show it where ``-v`` asks for it.

    Returns:
        The exit code.
    """
    trace = redact("".join(traceback.format_exception(error)))
    if {"-v", "--verbose"} & set(arguments):
        say(trace)
    say(f"error[bug]: a bug in runner: {type(error).__name__}: {clean(str(error), most_chars=200)}")
    place = _write(trace)
    if place is not None:
        say(f"  note: its trace is in {place}")
    say("  hint: report it with that file; what was submitted is on disk, and the same command goes on")
    return EXIT_CODE


def _write(trace: str) -> str | None:
    try:
        number, path = tempfile.mkstemp(prefix="runner-bug-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return None
    return path
