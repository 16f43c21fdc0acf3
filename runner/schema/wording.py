"""How values, types, lists of choices and differences of requests are written in a message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from runner.core.model import Json
from runner.core.sanitize import redact

MAX_VALUE_CHARS = 60
"""Characters of a value that a message may contain."""

_MAX_READ_CHARS = 4096

_MAX_NEAREST = 3
_PRODUCT, _USE = re.compile("wan|seedance|hailuo"), re.compile("kf2v|[tir]2v")

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_TYPES_OF_VALUES = (
    (bool, "boolean"),
    (str, "string"),
    (int, "number"),
    (float, "number"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


def format_value(value: Any) -> str:
    """
    Write a value for a message: short, on one line, and without what may be a secret.

    >>> format_value("13"), format_value(True), format_value({"a": 1}), format_value("sk-0123456789abcdef")
    ("'13'", 'true', 'a mapping', "'[redacted]'")
    """
    if isinstance(value, str):
        return _format_text(value)
    if isinstance(value, dict | list):
        return type_name(value)
    if isinstance(value, int) and abs(value) >= 10**MAX_VALUE_CHARS:
        return f"a number of over {MAX_VALUE_CHARS} digits"
    try:
        return json.dumps(value)[:MAX_VALUE_CHARS]
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"


def _format_text(value: str) -> str:
    text = re.sub(r"(?s)^(data:[^,]{0,40},).+", r"\1…", value[:_MAX_READ_CHARS])
    text = redact(text, opaque=True)
    if len(text) > MAX_VALUE_CHARS - 2:
        text = text[: MAX_VALUE_CHARS - 3] + "…"
    return repr(text.encode("utf-8", "replace").decode())


def type_name(value: Any) -> str:
    """
    Name the type of a value as the manifest's author would.

    >>> type_name(5), type_name(5.5), type_name(True), type_name(None)
    ('a number', 'a number', 'true or false', 'null')
    """
    for python_type, name in _TYPES_OF_VALUES:
        if isinstance(value, python_type):
            return _TYPES[name]
    return type(value).__name__


def type_names(types: str | Sequence[str]) -> str:
    """
    Name the types that a schema's ``type`` allows.

    >>> type_names(["string", "array"])
    'text or a list'
    """
    return join_or([_TYPES[name] for name in ([types] if isinstance(types, str) else types)])


def type_mismatch(value: Any, types: str | Sequence[str]) -> str:
    """
    Describe a value whose type is not one of the schema's ``type``.

    >>> type_mismatch(5, "string"), type_mismatch([], "object")
    ('5 is a number, not text', 'a list is not a mapping')
    """
    if isinstance(value, dict | list | type(None)):
        return f"{format_value(value)} is not {type_names(types)}"
    return f"{format_value(value)} is {type_name(value)}, not {type_names(types)}"


def join_or(choices: Sequence[str]) -> str:
    """
    Join choices with commas and a last "or".

    >>> join_or(["a", "b", "c"])
    'a, b or c'
    """
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def format_choices(values: Sequence[Any]) -> str:
    """
    List what is allowed; runs of whole numbers become ranges.

    >>> format_choices(["-1", "4", "5", "6", "7"]), format_choices(["720P"]), format_choices(["480p", "720p"])
    ('-1 or 4 to 7', "only '720P'", '480p, 720p')
    """
    if len(values) == 1:
        return f"only {format_value(values[0])}"
    texts = [value if isinstance(value, str) else format_value(value) for value in values]
    if not all(re.fullmatch("-?(?:0|[1-9][0-9]*)", text) for text in texts):
        return ", ".join(texts)
    runs: list[list[int]] = []
    for number in sorted(map(int, texts)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return join_or([str(low) if low == high else f"{low} to {high}" for low, high in runs])


def format_bounds(schema: dict[str, Any]) -> str:
    """
    Describe the numbers that a schema allows.

    >>> format_bounds({"minimum": 0, "maximum": 9}), format_bounds({"exclusiveMinimum": 0})
    ('0 to 9', 'more than 0')
    """
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    templates = (
        ("minimum", "{} or more"),
        ("maximum", "{} or less"),
        ("exclusiveMinimum", "more than {}"),
        ("exclusiveMaximum", "less than {}"),
    )
    return " and ".join(text.format(schema[key]) for key, text in templates if key in schema)


def did_you_mean(value: Any, known: Iterable[Any]) -> str | None:
    """
    Ask for the name that was probably meant; return None if none is close.

    >>> did_you_mean("seeds", ["model", "seed"]), did_you_mean("720", ["480p", "720p"]), did_you_mean("x", ["seed"])
    ("did you mean 'seed'?", "did you mean '720p'?", None)
    """
    # Only mistakes need it, and it is slow to import.
    import difflib

    if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > 200):
        return None
    names = {str(name).lower(): str(name) for name in known if isinstance(name, str | int)}
    close = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.6)
    return f"did you mean '{names[close[0]]}'?" if close else None


def nearest_models(model: str, known: Iterable[str]) -> list[str]:
    """
    Return up to three models with a similar name, of the same product and for the same use.

    >>> models = ["wan2.7-t2v", "wan2.7-i2v", "wan3.0-video", "dreamina-seedance-2-5-260628"]
    >>> nearest_models("wan2.8-i2v", models), nearest_models("seedance-2-5", models), nearest_models("veo-3", models)
    (['wan2.7-i2v'], ['dreamina-seedance-2-5-260628'], [])
    """
    # Only mistakes need it, and it is slow to import.
    import difflib

    product, use = _product(model), _USE.search(model.lower())
    if product is None or len(model) > 200:
        return []
    names = {
        name.lower().removeprefix("dreamina-"): name
        for name in known
        if _product(name) == product
        and (use is None or (found := _USE.search(name.lower())) is None or found[0] == use[0])
    }
    wanted = model.lower().removeprefix("dreamina-")
    return [names[near] for near in difflib.get_close_matches(wanted, names, n=_MAX_NEAREST, cutoff=0.6)]


def _product(model: str) -> str | None:
    found = _PRODUCT.search(model.lower())
    return found[0] if found else None


def changed_fields(old: Json, new: Json) -> tuple[str, ...]:
    """
    Describe the fields of a request that differ; long values are shortened.

    >>> changed_fields({"seconds": "5", "seed": 1}, {"seconds": "8", "seed": 1})
    ("seconds: '5' -> '8'",)
    """
    fields = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        before, after = (_short(request, name) for request in (old, new))
        fields.append(f"{name}: {before} -> {after}")
    return tuple(fields)


def _short(request: Json, name: str) -> str:
    if name not in request:
        return "(absent)"
    text = repr(request[name])
    return text if len(text) <= 40 else f"{text[:37]}..."
