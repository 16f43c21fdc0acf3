"""
Which gateways and commands are trusted: those that this machine's user named.

A results file or a run directory may come from somebody else. The key is sent only to the default gateway, or to
one that an option, the environment or the run's own manifest names; and a command in ``notify`` or ``on_asset`` is
started, or a webhook called, only if that manifest has it too, or with ``--trust``. The run's own manifest is the file at the absolute path that ``run``
recorded, as it is on this machine now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from runner.api.config import BASE_URL_NAME
from runner.api.options import RunOptions
from runner.api.run_facts import RunFacts
from runner.core.addresses import unencrypted_host
from runner.core.settings import DEFAULT_BASE_URL, OnAsset, Settings
from runner.engine.events import Notice, Observer, ignore
from runner.errors import RunnerError, UsageError
from runner.gateway.urls import gateway_root
from runner.manifest.loader import load

FLAG = "--base-url"

ReadSettings = Callable[[], Settings | None]
"""Reads the settings of the run's own manifest; None if there is none on this machine."""


def manifest_settings(facts: RunFacts) -> Settings | None:
    """Read the settings of the manifest that a run recorded; None if it is not on this machine, or can't be read."""
    path = Path(facts.origin.manifest or "")
    if not path.is_absolute() or not path.is_file():
        return None
    try:
        # What is wrong with it keeps its default, which names nothing.
        return load(path, ignore, variables={}, today=datetime.now(UTC).date()).settings
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
