"""How values, kinds and lists of choices are written in a message."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 60
"""Characters of a value that a message may carry."""

# A key or a token: a known prefix, or 32 letters and digits and more without a pause, outside an address.
_SECRET = re.compile(
    r"\b[sprak]k[-_][A-Za-z0-9_-]{12,}|\bbearer\s+\S{8,}"
    r"|(?<![A-Za-z0-9/._-])(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{32,}(?![a-z0-9/.])",
    re.IGNORECASE,
)
_DATA_URI = re.compile(r"^(data:[^,]{0,40},).+", re.DOTALL)
_ADDRESS_TAIL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#@]*@)?([^?#]*)[?#].*", re.DOTALL)
_ADDRESS_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#@]*@")
_DIGITS = re.compile(r"-?(?:0|[1-9][0-9]*)")

_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def show(value: Any) -> str:
    """
    Write a value for a message: short, on one line, and without what may be a secret.

    >>> show("13"), show(True), show({"a": 1}), show("https://cdn.example/a.png?sig=1f")
    ("'13'", 'true', 'a mapping', "'https://cdn.example/a.png?…'")
    >>> show("sk-0123456789abcdef")
    'a text that looks like a key'
    """
    if isinstance(value, str):
        return _show_text(value)
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return "a number of over 60 digits"
    try:
        return json.dumps(value)[:LONGEST]
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"


def _show_text(value: str) -> str:
    text = _DATA_URI.sub(r"\1…", value[:4096])
    text = _ADDRESS_TAIL.sub(r"\1\2?…", text)
    text = _ADDRESS_USER.sub(r"\1", text)
    if _SECRET.search(text):
        return "a text that looks like a key"
    if len(text) > LONGEST - 2:
        text = text[: LONGEST - 3] + "…"
    return repr(text.encode("utf-8", "replace").decode())


def kind_of(value: Any) -> str:
    """
    Say what kind of value this is, as the manifest's author would.

    >>> kind_of(5), kind_of(5.5), kind_of(True), kind_of(None)
    ('a number', 'a number', 'true or false', 'null')
    """
    if isinstance(value, bool):
        return _KINDS["boolean"]
    for python, name in (
        (str, "string"),
        (int, "number"),
        (float, "number"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, python):
            return _KINDS[name]
    return _KINDS["null"] if value is None else type(value).__name__


def kinds(types: str | Sequence[str]) -> str:
    """
    Name the kinds that a schema's ``type`` allows.

    >>> kinds(["string", "array"])
    'text or a list'
    """
    return either([_KINDS[name] for name in ([types] if isinstance(types, str) else types)])


def mismatch(value: Any, types: str | Sequence[str]) -> str:
    """
    Say that a value is of another kind than the schema's ``type`` wants.

    >>> mismatch(5, "string"), mismatch([], "object")
    ('5 is a number, not text', 'a list is not a mapping')
    """
    if isinstance(value, dict | list | type(None)):
        return f"{show(value)} is not {kinds(types)}"
    return f"{show(value)} is {kind_of(value)}, not {kinds(types)}"


def either(choices: Sequence[str]) -> str:
    """
    Join choices with commas and a last "or".

    >>> either(["a", "b", "c"])
    'a, b or c'
    """
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def choices(values: Sequence[Any]) -> str:
    """
    List what is allowed; runs of whole numbers become ranges.

    >>> choices(["-1", "4", "5", "6", "7"]), choices(["720P"]), choices(["480p", "720p"])
    ('-1 or 4 to 7', "only '720P'", '480p, 720p')
    """
    if len(values) == 1:
        return f"only {show(values[0])}"
    texts = [value if isinstance(value, str) else show(value) for value in values]
    if not all(_DIGITS.fullmatch(text) for text in texts):
        return ", ".join(texts)
    runs: list[list[int]] = []
    for number in sorted(map(int, texts)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return either([str(low) if low == high else f"{low} to {high}" for low, high in runs])


def bounds(schema: dict[str, Any]) -> str:
    """
    Say which numbers a schema allows.

    >>> bounds({"minimum": 0, "maximum": 9}), bounds({"exclusiveMinimum": 0})
    ('0 to 9', 'more than 0')
    """
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    words = (
        ("minimum", "{} or more"),
        ("maximum", "{} or less"),
        ("exclusiveMinimum", "more than {}"),
        ("exclusiveMaximum", "less than {}"),
    )
    return " and ".join(text.format(schema[key]) for key, text in words if key in schema)


def nearest(value: Any, known: Iterable[Any]) -> str | None:
    """
    Find the name that was probably meant, or None where nothing is near.

    >>> nearest("seeds", ["model", "seed"]), nearest("720", ["480p", "720p"]), nearest("x", ["seed"])
    ('seed', '720p', None)
    """
    names = {str(name).lower(): str(name) for name in known if isinstance(name, str | int)}
    if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > 200):
        return None
    found = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else None


def did_you_mean(value: Any, known: Iterable[Any]) -> str | None:
    """
    Ask for the nearest name, where one is near.

    >>> did_you_mean("seeds", ["seed"])
    "did you mean 'seed'?"
    """
    name = nearest(value, known)
    return f"did you mean '{name}'?" if name is not None else None
