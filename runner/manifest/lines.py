"""JSONL files: an object on each line, read as a stream with the number of its line."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

from runner import jsontext
from runner.core.spec import Json
from runner.manifest.scalars import looks_like_key

KEY_MESSAGE = "this looks like an API key, which does not belong among the jobs"
KEY_HINT = "keep the key in an environment variable, and its name under gateway.api_keys"
JSONL_SUFFIXES = (".jsonl", ".ndjson")

Complain = Callable[[int, str, str | None], None]
"""Takes a line (from 1; 0 for the file as a whole), what is wrong there, and a hint."""


class FileUnusable(Exception):
    """Nothing more can be read from a file of rows, for a reason that is found on its line (0: on none)."""

    def __init__(self, line: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


def read_objects(path: Path, complain: Complain) -> Iterator[tuple[int, dict[str, Json]]]:
    """
    Stream the objects of a JSONL file, each with its line. Blank lines are passed over.

    What is wrong with a line is complained of, and the line left out.

    Raises:
        FileUnusable: The file is missing or can't be read to its end.
    """
    loads = jsontext.loads
    try:
        with path.open("rb") as stream:
            if stream.read(len(BOM_UTF8)) != BOM_UTF8:
                stream.seek(0)
            for number, raw in enumerate(stream, start=1):
                try:
                    line = raw.decode()
                    value = loads(line)
                except (ValueError, RecursionError):
                    if raw.strip():
                        complain(number, _why_not_json(raw), None)
                    continue
                if type(value) is not dict:
                    complain(number, "the line is JSON, but not an object in braces", None)
                elif _may_hold_key(line) and _holds_key(value):
                    complain(number, KEY_MESSAGE, KEY_HINT)
                else:
                    yield number, value
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> FileUnusable:
    """Say in the operating system's words why a file can't be read."""
    return FileUnusable(0, f"'{path.name}' can't be read: {error.strerror or error}")


def _why_not_json(raw: bytes) -> str:
    """Ask the standard library what is wrong, so that the words are the same whatever else is installed."""
    try:
        json.loads(raw.decode().rstrip())
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    except json.JSONDecodeError as error:
        return f"the line is not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "the line is nested too deeply"
    return "the line holds a number or a character that JSON does not have"


def _may_hold_key(line: str) -> bool:
    """Look for the letters that every key comes with: in the line as a whole, since that is one text instead of many."""
    line = line.lower()
    return "sk-" in line or "key" in line or "bearer" in line or "secret" in line or "authorization" in line


def _holds_key(value: Json) -> bool:
    if isinstance(value, str):
        return looks_like_key(value)
    if isinstance(value, dict):
        return any(_holds_key(item) for item in value.values())
    return isinstance(value, list) and any(_holds_key(item) for item in value)
