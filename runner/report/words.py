"""Text, numbers and durations as a person reads them."""

from __future__ import annotations

import re

# Directions that reach past their own text (embeddings, overrides, isolates), and C1 controls.
_HOSTILE = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_CONTROL = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def plain(text: str, most: int = 2000) -> str:
    r"""
    Make foreign text harmless to look at: controls are shown as pictures, and what is too long is cut.

    >>> plain("red \x1b[31m"), plain("a" * 30, most=5)
    ('red ␛[31m', 'aaaaa… (30 characters)')
    """
    if len(text) <= most and text.isascii() and text.isprintable():
        return text
    shown = _HOSTILE.sub("\ufffd", text[:most]).translate(_CONTROL)
    return shown if len(text) <= most else f"{shown}… ({len(text):,} characters)"


def size_text(size_bytes: int) -> str:
    """
    Write a size.

    >>> size_text(0), size_text(1_048_576), size_text(2_500_000_000)
    ('0 B', '1.0 MB', '2.5 GB')
    """
    size, unit = float(size_bytes), 0
    while size >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"


def duration_text(seconds: float) -> str:
    """
    Write a duration in its two largest units.

    >>> duration_text(0.25), duration_text(93.1), duration_text(7325), duration_text(200_000)
    ('0.2 s', '1 min 33 s', '2 h 2 min', '2 d 7 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def outcome_text(succeeded: int, jobs: int) -> str:
    """
    Say in a sentence how a run went.

    >>> outcome_text(40, 40), outcome_text(38, 40), outcome_text(0, 0)
    ('All 40 jobs succeeded.', '38 of 40 jobs succeeded.', 'There was nothing to do.')
    """
    if not jobs:
        return "There was nothing to do."
    if succeeded == jobs:
        return "The job succeeded." if jobs == 1 else f"All {jobs:,} jobs succeeded."
    return f"{succeeded:,} of {jobs:,} jobs succeeded."
