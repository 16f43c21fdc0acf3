"""
What YAML reads otherwise than people mean it: text that a ``#`` cuts short, and text that begins as an anchor does.

Both are valid, and would be paid for in silence; so they get a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from yaml.events import ScalarEvent

from runner.input_files import open_regular
from runner.manifest.scalars import NON_TEXT_STARTS, resolve_plain

HASH_HINT = "quote the text if the '#' belongs to it, or write a blank behind the '#'"
ANCHOR_HINT = "quote the text if it begins with '&'"

# One blank before the hash and none behind it: people write comments otherwise. Lines of megabytes are not looked at.
_HASH = re.compile(rb"[^\s#] (?=#[^\s#])")
_BLOCK = 1 << 20
_MAX_HASHES = 10_000

Mark = tuple[int, int]
"""A line and a column, both from 0."""


def find_hashes(path: Path) -> frozenset[Mark]:
    """
    Find where a hash may cut a text short, in a scan that takes a twentieth of the time of parsing.

    Returns:
        The marks of the blanks before the hashes, of the first so many.
    """
    found: set[Mark] = set()
    line = 0
    with open_regular(path) as stream:
        while (block := stream.read(_BLOCK) + stream.readline(_BLOCK)) and len(found) < _MAX_HASHES:
            end = 0
            for match in _HASH.finditer(block) if b" #" in block else ():
                start = block.rfind(b"\n", 0, match.end()) + 1
                line += block.count(b"\n", end, start)
                end = start
                found.add((line, len(block[start : match.end() - 1].decode("utf-8", "replace"))))
            line += block.count(b"\n", end)
            if b"\0" in block:
                # The parser stops here; a file with a hole may have nothing else for terabytes.
                break
    return frozenset(found)


def cut_texts(events: Iterable[Any], hashes: frozenset[Mark]) -> Iterator[tuple[Mark, str]]:
    """Yield the mark of each hash that ends a plain text, and the text before it."""
    for event in events:
        if event.__class__ is ScalarEvent and not event.style and is_text(event.value):
            end: Any = event.end_mark
            if (end.line, end.column) in hashes:
                yield (end.line, end.column + 1), event.value


def is_text(plain: str) -> bool:
    """Return whether a plain scalar is text, and no number or word of YAML."""
    if not plain or plain[0] not in NON_TEXT_STARTS:
        return bool(plain)
    try:
        return isinstance(resolve_plain(plain), str)
    except ValueError:
        return False
