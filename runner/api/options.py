"""Where the gateway is and what it is asked with: flags, environment, ``.env`` and manifest, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import fields, replace

from runner.core.model import Json
from runner.core.settings import DEFAULT_BASE_URL, Settings
from runner.core.units import format_duration, format_rate, format_size
from runner.gateway.credentials import KeySet, read_keys, with_env_file
from runner.store.sync import OnChanged

BASE_URL_NAME = "POWERTOKENS_BASE_URL"


class Overrides(Struct, frozen=True, kw_only=True):
    """
    What a command line says over the manifest; None where it is silent.

    Attributes:
        env_file: A file of variables; by default ``.env`` beside the manifest, where there is one.
    """

    base_url: str | None = None
    submit_per_s: float | None = None
    poll_per_s: float | None = None
    in_flight: int | None = None
    downloads: int | None = None
    env_file: Path | None = None


class EffectiveSettings(Struct, frozen=True):
    """
    The settings in force, and where each that can come from several places came from.

    Attributes:
        sources: By a setting's name, such as ``gateway.base_url``: ``flag``, ``environment``, ``manifest`` or
            ``default``.
    """

    settings: Settings
    base_url: str
    sources: Mapping[str, str]


def read_environment(overrides: Overrides, beside: Path | None) -> Mapping[str, str]:
    """
    Read the process's environment, completed by a ``.env`` file; what is set already wins.

    Args:
        beside: The folder of the manifest, or None where there is none.

    Raises:
        UsageError: The file that was named can't be read.
    """
    if overrides.env_file is not None:
        return with_env_file(os.environ, overrides.env_file)
    if beside is not None and (beside / ".env").is_file():
        return with_env_file(os.environ, beside / ".env")
    return os.environ


def apply_overrides(
    settings: Settings, overrides: Overrides, environ: Mapping[str, str]
) -> EffectiveSettings:
    """Lay the command line and the environment over a manifest's settings."""
    base_url, source = _base_url(settings, overrides, environ)
    sources = {"gateway.base_url": source}
    limits = settings.limits
    for name in ("submit_per_s", "poll_per_s", "in_flight", "downloads"):
        value = getattr(overrides, name)
        label = f"limits.{name.removesuffix('_per_s')}"
        if value is not None:
            limits = replace(limits, **{name: value})
            sources[label] = "flag"
        else:
            sources[label] = "default" if getattr(limits, name) == _DEFAULTS[name] else "manifest"
    return EffectiveSettings(replace(settings, limits=limits, base_url=base_url), base_url, sources)


def credentials(settings: Settings, environ: Mapping[str, str]) -> KeySet:
    """
    Collect the keys to run with.

    Raises:
        CredentialsMissing: None is set; the message names the variables.
    """
    return read_keys(settings.key_names, environ)


def _base_url(settings: Settings, overrides: Overrides, environ: Mapping[str, str]) -> tuple[str, str]:
    if overrides.base_url:
        return overrides.base_url, "flag"
    if environ.get(BASE_URL_NAME):
        return environ[BASE_URL_NAME], "environment"
    if settings.base_url:
        return settings.base_url, "manifest"
    return DEFAULT_BASE_URL, "default"


_DEFAULTS = {
    name: getattr(Settings(name="").limits, name)
    for name in ("submit_per_s", "poll_per_s", "in_flight", "downloads")
}


class IfLocked(StrEnum):
    """What to do where another process works in the run directory."""

    FAIL = "fail"
    WAIT = "wait"


class RunOptions(Struct, frozen=True, kw_only=True):
    """
    How to run. Every field has the meaning of the command line's option of its name.

    Attributes:
        variables: Of `--var`.
        job: Only jobs whose id matches, as the shell matches file names.
        max_failures: A number of jobs, or a share of all such as 0.1.
        run_s: How long jobs are submitted, counted from the call; None for as long as there are any.
        keep_runs: So many runs of a series stay, this one included; older ones are deleted, see `keep`.
        keep_days: Those of the last so many days stay.
        scenario: The simulator's, by name or path; only for simulated runs.
    """

    simulate: bool = False
    scenario: str | None = None
    limit: int | None = None
    job: str | None = None
    retry_failed: bool = False
    skip_invalid: bool = False
    strict: bool = False
    on_changed: OnChanged = OnChanged.ERROR
    max_failures: int | float | None = None
    run_s: float | None = None
    drain_s: float = 600.0
    if_locked: IfLocked = IfLocked.FAIL
    keep_runs: int | None = None
    keep_days: int | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    overrides: Overrides = Overrides()


def settings_lines(effective: EffectiveSettings) -> Iterator[str]:
    """
    Write each setting as the manifest would name it, its value, and its source.

    >>> from runner.api.options import Overrides, apply_overrides
    >>> lines = list(settings_lines(apply_overrides(Settings(name="kittens"), Overrides(in_flight=3), {})))
    >>> [" ".join(line.split()) for line in lines if "in_flight" in line]
    ['limits.in_flight 3 (flag)']
    """
    settings, otherwise = effective.settings, Settings(name=effective.settings.name)
    yield _line("gateway.base_url", effective.base_url, effective.sources["gateway.base_url"])
    yield _line("gateway.api_keys", ", ".join(settings.key_names), _source(settings, otherwise, "key_names"))
    for section in ("limits", "poll", "timeouts", "retry", "assets"):
        value, default = getattr(settings, section), getattr(otherwise, section)
        for entry in fields(value):
            own = getattr(value, entry.name)
            name = f"{section}.{_NAMES.get(entry.name) or _bare(entry.name)}"
            if isinstance(own, Mapping):
                yield from _models(name, own)
            else:
                source = effective.sources.get(name) or _source(value, default, entry.name)
                yield _line(name, _text(entry.name, own), source)
    ways = sum(1 for _ in settings.notify)
    yield _line("notify", f"{ways} ways" if ways != 1 else "1 way", _source(settings, otherwise, "notify"))


_NAMES = {"max_bytes": "max_size"}


def _models(name: str, models: Mapping[str, Any]) -> Iterator[str]:
    for model, own in models.items():
        for entry in fields(own):
            value = getattr(own, entry.name)
            if value is not None:
                yield _line(f"{name}.{model}.{_bare(entry.name)}", _text(entry.name, value), "manifest")


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
