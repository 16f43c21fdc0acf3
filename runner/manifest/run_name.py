"""The name of a run, which names a directory."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.core.spec import Json

MAX_LENGTH = 100

# What some file system refuses, or a shell takes for something else.
_UNSAFE = re.compile(r"[\\/:*?\"<>|\x00-\x1f\x7f-\x9f]+")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")


def run_name(written: str, variables: Mapping[str, Json]) -> str:
    """
    Put the variables into the name that a manifest gives its run.

    >>> run_name("nightly-${date}", {"date": "2026-11-21"})
    'nightly-2026-11-21'

    Raises:
        ValueError: A variable is unknown, or the result is no safe name of a directory.
    """

    def value_of(match: re.Match[str]) -> str:
        value = variables.get(match[1])
        if value is None or isinstance(value, dict | list):
            known = ", ".join(sorted(variables)) or "none"
            raise ValueError(f"unknown variable {match[0]!r} in the name (known: {known})")
        return str(value)

    name = _PLACEHOLDER.sub(value_of, written)
    if name != safe_name(name):
        raise ValueError(
            f"{name[:60]!r} can't name a directory: take up to {MAX_LENGTH} letters, digits, '-', '_' and '.', "
            "without a '.' at either end"
        )
    return name


def safe_name(text: str) -> str:
    """
    Make a text into a name that a directory may have on any system.

    >>> safe_name("night: run*.v2"), safe_name(".."), safe_name("小猫")
    ('night- run-.v2', 'run', '小猫')
    """
    name = _UNSAFE.sub("-", text)[:MAX_LENGTH].strip(". ")
    if not name or _RESERVED.fullmatch(name):
        return f"run-{name}".rstrip("-")
    return name
