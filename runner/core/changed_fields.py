"""How a request differs from an earlier one, in words."""

from __future__ import annotations

from runner.core.model import Json


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
