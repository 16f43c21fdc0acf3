"""What a manifest says besides its jobs, checked and as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from msgspec import Struct, field

from runner.core.addresses import is_loopback_host
from runner.core.filenames import run_name, safe_name
from runner.core.model import Json
from runner.core.problem import Finding, Severity
from runner.core.settings import TEST_HOST, Settings
from runner.manifest.document import Document, ProblemHandler, header_findings

VERSION = 1

_NO_SETTINGS = frozenset({"version", "name", "jobs", "defaults", "vars"})
"""Where a manifest has no other keys, nothing can be wrong with its settings."""


class Defaults(Struct, frozen=True, kw_only=True):
    """
    What jobs get where they say nothing themselves, as it is written.

    Attributes:
        request: For every job.
        models: By model, over `request`.
        metadata: For every job.
    """

    request: Mapping[str, Json] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)


class Header(Struct, frozen=True, kw_only=True):
    """
    The keys of a manifest but `jobs`.

    Attributes:
        name: Names the run directory; a safe name of a directory.
        vars: As they are written, placeholders and all.
        written: All keys that are of the right form.
    """

    version: int
    name: str
    values: Mapping[str, Json] = field(default_factory=dict)
    defaults: Defaults = Defaults()
    vars: Mapping[str, Json] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What the run needs to know; put together only here, since checking the jobs needs none of it."""
        from runner.manifest.settings import read_settings

        return read_settings(self.values, self.name)[0]


def read_header(document: Document, report: ProblemHandler, variables: Mapping[str, Json]) -> Header:
    """
    Read the header of a manifest, and report everything that is wrong with it.

    What is wrong is left at its default, so that the jobs can be checked all the same.

    Placeholders in the name may use the ``variables``: the date, and those of `vars` and of the command line.
    """
    entry = document.header
    findings = header_findings(entry.value)
    value = _without(entry.value, findings)
    name, found = _name(value.get("name"), safe_name(document.path.stem), variables)
    findings += found
    if not value.keys() <= _NO_SETTINGS:
        findings += _settings_findings(value, name)
    findings += _model_findings(value)
    for problem in entry.problems(findings):
        report(problem)
    defaults = value.get("defaults", {})
    return Header(
        version=VERSION,
        name=name,
        values=value,
        defaults=Defaults(**defaults),
        vars=value.get("vars", {}),
    )


def _without(value: dict[str, Json], findings: list[Finding]) -> dict[str, Json]:
    """Copy a value without what has findings, so that the rest can be read without a second look."""
    for finding in findings:
        if finding.path:
            value = _removed(value, finding.path)
    return value


def _removed(value: Json, path: tuple[str | int, ...]) -> Json:
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step in value:
        copy = dict(value)
        if rest and isinstance(value[step], dict):
            copy[step] = _removed(value[step], rest)
        else:
            # What is wrong inside a list takes the list along.
            del copy[step]
        return copy
    return value


def _name(written: Json, otherwise: str, variables: Mapping[str, Json]) -> tuple[str, list[Finding]]:
    if written is None:
        return otherwise, []
    try:
        return run_name(written, variables), []
    except ValueError as error:
        return otherwise, [Finding(("name",), f"name: {error}")]


def _settings_findings(value: Mapping[str, Json], name: str) -> list[Finding]:
    from runner.manifest.settings import read_settings

    settings, findings = read_settings(value, name)
    if settings.base_url is not None:
        findings += _base_url_findings(settings.base_url)
    return findings


def _base_url_findings(base_url: str) -> Iterator[Finding]:
    """Warn of addresses that are probably a mistake; nothing of the address is shown but its host."""
    path = ("gateway", "base_url")
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        yield Finding(path, "gateway.base_url: this address has no host, or a port that is none")
        return
    if parts.username is not None or parts.password is not None:
        hint = "put the key in an environment variable, and its name under gateway.api_keys"
        yield Finding(path, "gateway.base_url: an address must not hold a name or a password", hint)
    if parts.query or parts.fragment:
        yield Finding(path, "gateway.base_url: the address must end before '?' and '#'")
    if host == TEST_HOST:
        message = f"gateway.base_url: {TEST_HOST} is the vendor's test environment"
        hint = "one of the API's documents shows it by mistake; the API is at https://api.powertokens.ai"
        yield Finding(path, message, hint, Severity.WARNING)
    if parts.scheme.lower() == "http" and not is_loopback_host(host):
        message = f"gateway.base_url: the key would travel to {host} unencrypted"
        yield Finding(path, message, "write https://", Severity.WARNING)


def _model_findings(value: Mapping[str, Json]) -> Iterator[Finding]:
    """Warn of bounds and defaults for models that are probably misspelt: they would apply to nothing."""
    from runner.schema.catalog import load_catalog

    models = load_catalog().models
    for section in ("limits", "defaults"):
        for model in value.get(section, {}).get("models", {}):
            if model not in models and (hint := _did_you_mean(model, models)):
                path = (section, "models", model)
                message = f"{section}.models: no schema knows the model {model[:60]!r}"
                yield Finding(path, message, hint, Severity.WARNING)


def _did_you_mean(model: str, models: Mapping[str, Json]) -> str | None:
    from runner.schema.wording import did_you_mean

    return did_you_mean(model, models)
