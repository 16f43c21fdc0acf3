"""
What is in force for a run: options and environment over the manifest's settings, the keys, and which gateways and commands
are trusted: those that this machine's user named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import fields, replace

from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_facts import RunFacts
from runner.api.simulate import simulated_keys, with_simulator_speed
from runner.core.addresses import unencrypted_host
from runner.core.settings import DEFAULT_BASE_URL, Inputs, OnAsset, Settings
from runner.core.units import format_count, format_duration, format_rate, format_size
from runner.engine.events import Notice, Observer, ignore
from runner.errors import RunnerError, UsageError
from runner.gateway.credentials import Environment, KeySet, read_keys, with_env_file
from runner.gateway.urls import gateway_root
from runner.manifest.loader import load

BASE_URL_NAME = "POWERTOKENS_BASE_URL"

_ADDRESS_NAMES = frozenset({BASE_URL_NAME, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
"""Variables that decide where the key goes, in either case."""

_LIMITS = {
    "submit_per_s": "submit_rate",
    "poll_per_s": "poll_rate",
    "in_flight": "in_flight",
    "downloads": "downloads",
}
"""The limits that options replace, and the options."""
"""The limits that an option can set."""


class RunConfig(RunFacts, frozen=True):
    """
    What is in force for one process's work on a run.

    Attributes:
        environ: The environment, completed by the ``.env`` file; for proxies.
        gateway_source: What names the gateway.
        hook: The command for each finished asset, if it may be started; None if there is none.
        needs_base_url: Whether only ``--base-url`` names it, so that the next command needs the option too.
    """

    keys: KeySet
    environ: Mapping[str, str]
    gateway_source: str = "the manifest"
    needs_base_url: bool = False
    hook: OnAsset | None = None


def read_environment(options: RunOptions, folder: Path | None) -> Mapping[str, str]:
    """
    Read the process's environment, completed by a ``.env`` file; what is set already wins.

    A ``.env`` that no option names may come with a manifest from somebody else: it may set keys, but not the
    addresses that they are sent to.

    Args:
        folder: Where ``.env`` is looked for unless an option names the file; None to look nowhere.

    Raises:
        UsageError: The file that was named can't be read.
    """
    if options.env_file is not None:
        return with_env_file(os.environ, options.env_file)
    if folder is not None and os.path.isfile(folder / ".env"):
        environ = with_env_file(os.environ, folder / ".env", is_named=False)
        kept = {name: value for name, value in environ.items() if not _is_ignored(name)}
        return Environment(kept, environ.trouble)
    return os.environ


def run_environment(facts: RunFacts, options: RunOptions = DEFAULT_OPTIONS) -> Mapping[str, str]:
    """Return the environment of a run: the process's, completed by the ``.env`` beside its manifest."""
    manifest = facts.origin.manifest
    return read_environment(options, None if manifest is None else Path(manifest).parent)


def ignored_variables(options: RunOptions, folder: Path) -> list[str]:
    """Return the variables of a ``.env`` file that `read_environment` ignores."""
    if options.env_file is not None or not os.path.isfile(folder / ".env"):
        return []
    return sorted(filter(_is_ignored, with_env_file({}, folder / ".env", is_named=False)))


def _is_ignored(name: str) -> bool:
    return name.upper() in _ADDRESS_NAMES and not os.environ.get(name)


def apply_options(
    settings: Settings, options: RunOptions, environ: Mapping[str, str]
) -> tuple[Settings, Mapping[str, str]]:
    """
    Apply options and environment to a manifest's settings.

    Returns:
        The settings with their base URL set, and where those that may come from several places come from:
        by a name such as ``gateway.base_url``, one of ``flag``, ``environment``, ``manifest`` and ``default``.

    Raises:
        UsageError: The base URL is not the URL of a gateway.
    """
    base_url, source = _base_url(settings, options, environ)
    if not options.simulate:
        gateway_root(base_url)
    sources = {"gateway.base_url": source}
    limits, defaults = settings.limits, Settings(name="").limits
    for name, option in _LIMITS.items():
        value, key = getattr(options, option), f"limits.{_manifest_key(name)}"
        if value is not None:
            limits = replace(limits, **{name: value})
            sources[key] = "flag"
        else:
            sources[key] = "default" if getattr(limits, name) == getattr(defaults, name) else "manifest"
    return replace(settings, limits=limits, base_url=base_url), sources


def apply_simulator_speed(
    settings: Settings, sources: Mapping[str, str], options: RunOptions
) -> tuple[Settings, Mapping[str, str]]:
    """Replace rates and waits by the simulator's, with ``simulator`` as their source; see `apply_options`."""
    fast = with_simulator_speed(settings, options)
    replaced = {
        f"{section}.{_manifest_key(entry.name)}": "simulator"
        for section in ("limits", "poll")
        for entry in fields(getattr(fast, section))
        if getattr(getattr(fast, section), entry.name) != getattr(getattr(settings, section), entry.name)
    }
    return fast, {**sources, **replaced}


def find_keys(settings: Settings, environ: Mapping[str, str], *, simulate: bool) -> KeySet:
    """
    Collect the keys to run with.

    Raises:
        CredentialsMissing: None is set; the message names the variables.
    """
    return simulated_keys() if simulate else read_keys(settings.key_names, environ)


def settings_lines(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """
    Write each setting by its name in the manifest, with its value and its source.

    >>> settings, sources = apply_options(Settings(name="kittens"), RunOptions(in_flight=3), {})
    >>> [" ".join(line.split()) for line in settings_lines(settings, sources) if "in_flight" in line]
    ['limits.in_flight 3 (flag)']
    """
    defaults = Settings(name=settings.name, inputs=Inputs(upload=""))
    yield _line("gateway.base_url", str(settings.base_url), sources["gateway.base_url"])
    yield _line("gateway.api_keys", ", ".join(settings.key_names), _source(settings, defaults, "key_names"))
    for section in ("limits", "poll", "timeouts", "retry", "assets", "inputs"):
        if getattr(settings, section) is None:
            continue
        values, default = getattr(settings, section), getattr(defaults, section)
        for entry in fields(values):
            value = getattr(values, entry.name)
            key = f"{section}.{_manifest_key(entry.name)}"
            if isinstance(value, Mapping):
                yield from _model_lines(key, value)
            else:
                source = sources.get(key) or _source(values, default, entry.name)
                yield _line(key, _value_text(entry.name, value), source)
    if settings.checks:
        yield _line("checks", ", ".join(settings.checks), "manifest")
    for cls, takes in settings.reroll.items():
        yield _line(f"reroll.{cls}", str(takes), "manifest")
    channels = format_count(len(settings.notify), "channel")
    yield _line("notify", channels, _source(settings, defaults, "notify"))


def _base_url(settings: Settings, options: RunOptions, environ: Mapping[str, str]) -> tuple[str, str]:
    if options.base_url:
        return options.base_url, "flag"
    if environ.get(BASE_URL_NAME):
        return environ[BASE_URL_NAME], "environment"
    if settings.base_url:
        return settings.base_url, "manifest"
    return DEFAULT_BASE_URL, "default"


def _model_lines(key: str, models: Mapping[str, Any]) -> Iterator[str]:
    for model, values in models.items():
        for entry in fields(values):
            value = getattr(values, entry.name)
            if value is not None:
                name = f"{key}.{model}.{_manifest_key(entry.name)}"
                yield _line(name, _value_text(entry.name, value), "manifest")


def _source(values: object, defaults: object, name: str) -> str:
    return "default" if getattr(values, name) == getattr(defaults, name) else "manifest"


def _manifest_key(name: str) -> str:
    return "max_size" if name == "max_bytes" else name.removesuffix("_per_s").removesuffix("_s")


def _value_text(name: str, value: Any) -> str:
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


FLAG = "--base-url"

ReadSettings = Callable[[], Settings | None]
"""Reads the settings of the run's own manifest; None if there is none on this machine."""


def manifest_settings(facts: RunFacts) -> Settings | None:
    """Read the settings of the manifest that a run recorded; None if it is not on this machine, or can't be read."""
    path = Path(facts.origin.manifest or "")
    if not path.is_absolute() or not os.path.isfile(path):
        return None
    try:
        # What is wrong with it keeps its default, which names nothing.
        return load(path, ignore, variables={}, today=datetime.now(UTC).date()).header.settings
    except RunnerError:
        return None


def gateway_source(
    base_url: str, options: RunOptions, environ: Mapping[str, str], read_settings: ReadSettings
) -> str | None:
    """Return what names a gateway: an option, the default, the environment or the manifest; None if nothing does."""
    if options.base_url:
        return FLAG
    root = gateway_root(base_url)
    if root == DEFAULT_BASE_URL:
        return "the default"
    if _is_same(root, environ.get(BASE_URL_NAME)):
        return BASE_URL_NAME
    settings = read_settings()
    return "the manifest" if settings is not None and _is_same(root, settings.base_url) else None


def refused_gateway(gateway: str, where: str) -> UsageError:
    """Return the error for a gateway that only a file or a directory names."""
    return UsageError(
        f"only {where} names the gateway {gateway}, so the key is not sent there",
        hint=f"if you trust it, name it yourself: {FLAG} {gateway}",
    )


def announce_gateway(gateway: str, source: str | None, observe: Observer, *, where: str) -> None:
    """Report where requests and the key go, and warn if that is unencrypted, or needs to be confirmed by an option."""
    observe(Notice("gateway", f"gateway: {gateway} (named by {source or where})"))
    warn_unencrypted(gateway, observe)
    if source is None:
        refusal = refused_gateway(gateway, where)
        observe(Notice("warning", refusal.message, refusal.hint))


def warn_unencrypted(gateway: str, observe: Observer) -> None:
    """Warn of a gateway to which the key would travel unencrypted."""
    if (host := unencrypted_host(gateway)) is not None:
        observe(Notice("warning", f"the key travels to {host} unencrypted", "use https://"))


def trusted_settings(facts: RunFacts, options: RunOptions, observe: Observer) -> Settings:
    """Return the settings of a run without the notifications that only its directory names, unless they are trusted."""
    settings = facts.settings
    if settings.on_asset is not None and trusted_hook(facts, options) is None:
        observe(_not_started(settings.on_asset.command))
    if options.trust or not settings.notify:
        return settings
    own = manifest_settings(facts)
    named = {(notify.command, notify.webhook) for notify in own.notify} if own is not None else set()
    kept = tuple(notify for notify in settings.notify if (notify.command, notify.webhook) in named)
    for notify in settings.notify:
        if notify in kept:
            continue
        if notify.command:
            what, verb = f"the command {notify.command[0]!r} is not started", "start"
        else:
            what, verb = f"the webhook at {urlsplit(notify.webhook or '').hostname} is not called", "call"
        observe(Notice("warning", f"{what}: only the run directory names it", f"to {verb} it, add --trust"))
    return replace(settings, notify=kept)


def trusted_hook(facts: RunFacts, options: RunOptions) -> OnAsset | None:
    """Return the command for assets of a run; None if only its directory names it, and it is not trusted."""
    hook = facts.settings.on_asset
    if hook is None or options.trust:
        return hook
    own = manifest_settings(facts)
    is_named = own is not None and own.on_asset is not None and own.on_asset.command == hook.command
    return hook if is_named else None


def _not_started(command: Sequence[str]) -> Notice:
    message = f"the command {command[0]!r} is not started: only the run directory names it"
    return Notice("warning", message, "to start it, add --trust")


def _is_same(root: str, base_url: str | None) -> bool:
    try:
        return bool(base_url) and gateway_root(base_url or "") == root
    except UsageError:
        return False
