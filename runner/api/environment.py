"""Where the gateway is and what it is asked with: flags, environment, ``.env`` and manifest, in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from runner.core.settings import DEFAULT_BASE_URL, Settings
from runner.core.value import frozen
from runner.gateway.envfile import with_env_file
from runner.gateway.keys import KeySet, read_keys

BASE_URL_NAME = "POWERTOKENS_BASE_URL"


@frozen(kw_only=True)
class Overrides:
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


@frozen
class Effective:
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


def settle(settings: Settings, overrides: Overrides, environ: Mapping[str, str]) -> Effective:
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
    return Effective(replace(settings, limits=limits, base_url=base_url), base_url, sources)


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
