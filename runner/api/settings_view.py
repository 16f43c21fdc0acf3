"""Every setting in force, with where it comes from: for a person who asks why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from runner.api.environment import Effective
from runner.core.settings import Settings
from runner.core.units import format_duration, format_rate, format_size


def settings_lines(effective: Effective) -> Iterator[str]:
    """
    Write each setting as the manifest would name it, its value, and its source.

    >>> from runner.api.environment import Overrides, settle
    >>> lines = list(settings_lines(settle(Settings(name="kittens"), Overrides(in_flight=3), {})))
    >>> [" ".join(line.split()) for line in lines if "in_flight" in line]
    ['limits.in_flight 3 (flag)']
    """
    settings, otherwise = effective.settings, Settings(name=effective.settings.name)
    yield _line("gateway.base_url", effective.base_url, effective.sources["gateway.base_url"])
    yield _line("gateway.api_keys", ", ".join(settings.key_names), _source(settings, otherwise, "key_names"))
    for section in ("limits", "poll", "timeouts", "retry", "assets"):
        value, default = getattr(settings, section), getattr(otherwise, section)
        for field in fields(value):
            own = getattr(value, field.name)
            name = f"{section}.{_NAMES.get(field.name) or _bare(field.name)}"
            if isinstance(own, Mapping):
                yield from _models(name, own)
            else:
                source = effective.sources.get(name) or _source(value, default, field.name)
                yield _line(name, _text(field.name, own), source)
    ways = sum(1 for _ in settings.notify)
    yield _line("notify", f"{ways} ways" if ways != 1 else "1 way", _source(settings, otherwise, "notify"))


_NAMES = {"max_bytes": "max_size"}


def _models(name: str, models: Mapping[str, Any]) -> Iterator[str]:
    for model, own in models.items():
        assert is_dataclass(own)
        for field in fields(own):
            value = getattr(own, field.name)
            if value is not None:
                yield _line(f"{name}.{model}.{_bare(field.name)}", _text(field.name, value), "manifest")


def _source(value: object, default: object, name: str) -> str:
    return "default" if getattr(value, name) == getattr(default, name) else "manifest"


def _bare(name: str) -> str:
    return name.removesuffix("_per_s").removesuffix("_s")


def _text(name: str, value: Any) -> str:
    if value is None:
        return "any"
    if name.endswith("_per_s"):
        return format_rate(value)
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_bytes"):
        return format_size(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _line(name: str, value: str, source: str) -> str:
    return f"  {name:<36} {value}  ({source})"
