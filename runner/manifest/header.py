"""
The keys of a manifest besides its jobs, checked, with the files that ``prices`` and ``schemas`` name; and its defaults,
merged into its jobs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from runner.core.addresses import unencrypted_host
from runner.core.filenames import run_name, safe_name
from runner.core.model import Json
from runner.core.prices import PriceTable
from runner.core.problem import Finding, JsonPath, Position, Problem, Severity, format_path
from runner.core.sanitize import KEY_HINT
from runner.core.settings import DEFAULT_BASE_URL, TEST_HOST
from runner.errors import ManifestError
from runner.manifest.document import Document, Entry, ProblemHandler, open_document
from runner.manifest.settings import Defaults, Header, Variables, read_settings
from runner.manifest.template import Scope, compile_template, entry_variables
from runner.manifest.yaml_values import REDACTED
from runner.schema.catalog import Catalog, completed, load_catalog, schema_findings, short_name
from runner.schema.price_tables import read_price_table
from runner.schema.wording import did_you_mean

VERSION = 1

_NO_SETTINGS = frozenset({"version", "name", "jobs", "defaults", "vars"})
"""In a manifest without other keys, nothing can be wrong with the settings."""

_KEY_NAME_ENDS = ("_KEY", "_KEYS", "_TOKEN")


def read_header(
    document: Document,
    report: ProblemHandler,
    overrides: Mapping[str, Json],
    catalog: Catalog | None = None,
    *,
    today: date,
) -> Header:
    """
    Read the header of a manifest, and report everything that is wrong with it.

    What is wrong keeps its default, so that the jobs can be checked nevertheless.

    Args:
        overrides: Variables of the command line; they replace the manifest's own.
        catalog: With the schemas of the manifest's own; None if it has none.
        today: In UTC, for ``${date}`` and the age of its prices.
    """
    entry = document.header
    # People quote version numbers, and there is nothing else that it could mean.
    written = (
        {**entry.value, "version": VERSION} if entry.value.get("version") == str(VERSION) else entry.value
    )
    variables, variable_findings = _read_variables(entry, overrides, today)
    schema = load_catalog().header_schema(written.keys())
    findings = [*schema.findings(written), *_nul_findings(written)]
    value = _without_invalid(written, findings)
    findings += variable_findings
    name, name_findings = _name(value.get("name"), safe_name(document.path.stem), variables.values)
    findings += name_findings
    prices: PriceTable | None = None
    if "prices" in value:
        prices, price_findings = read_prices_key(value["prices"], document.path.parent, today, report)
        findings += price_findings
    if not value.keys() <= _NO_SETTINGS:
        findings += _settings_findings(value, name, prices)
    findings += _model_findings(value, (catalog or load_catalog()).models)
    if "schemas" in value:
        value = {
            **value,
            "schemas": [str((document.path.parent / name).resolve()) for name in value["schemas"]],
        }
    for problem in entry.problems(findings) if findings else ():
        report(problem)
    return Header(
        name=name,
        name_template=value.get("name"),
        variables=variables,
        values=value,
        defaults=Defaults(**value.get("defaults", {})),
        prices=prices,
    )


def _read_variables(
    entry: Entry, overrides: Mapping[str, Json], today: date
) -> tuple[Variables, list[Finding]]:
    """Compute the variables of a manifest."""
    constants = {"date": today.isoformat(), **overrides}
    declared, name = entry.value.get("vars"), entry.value.get("name")
    if not isinstance(declared, dict):
        # What is not a mapping is reported with the rest of the header.
        declared = {}
    if not declared and is_literal(name or ""):
        return Variables(constants, overrides, {"date"}), []
    scope = Scope(constants)
    variables = entry_variables(declared, scope, overrides)
    used = {"date", *declared, *scope.used}
    # The name is filled in elsewhere; here only its placeholders matter.
    compile_template(name, Scope(variables.scope.constants, used=used))
    findings = [replace(finding, path=("vars", *finding.path)) for finding in variables.findings]
    return Variables(variables.scope.constants, overrides, used), findings


def _without_invalid(value: dict[str, Json], findings: list[Finding]) -> dict[str, Json]:
    """Copy a value without what has findings, so that the rest can be read without checks."""
    for finding in findings:
        if finding.path:
            value = _removed(value, finding.path)
    return value


def _nul_findings(value: Json, path: JsonPath = ()) -> Iterator[Finding]:
    """Find settings with a NUL character: no file, command or address has one."""
    if isinstance(value, str) and "\0" in value:
        yield Finding(path, f"{format_path(path)}: the text has a NUL character", "remove it")
    elif isinstance(value, dict | list):
        for step, item in value.items() if isinstance(value, dict) else enumerate(value):
            if path or step not in _NO_SETTINGS:
                yield from _nul_findings(item, (*path, step))


def _removed(value: Json, path: JsonPath) -> Json:
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step in value:
        copy = dict(value)
        if rest and isinstance(value[step], dict):
            copy[step] = _removed(value[step], rest)
        else:
            # If something inside a list is wrong, the whole list is left out.
            del copy[step]
        return copy
    return value


def _name(template: Json, default: str, variables: Mapping[str, Json]) -> tuple[str, list[Finding]]:
    if template is None:
        return default, []
    try:
        return run_name(template, variables), []
    except ValueError as error:
        return default, [Finding(("name",), f"name: {error}")]


def _settings_findings(value: Mapping[str, Json], name: str, prices: PriceTable | None) -> list[Finding]:
    settings, findings = read_settings(value, name, prices)
    if settings.base_url is not None:
        findings += _base_url_findings(settings.base_url)
    findings += _key_name_findings(value.get("gateway", {}).get("api_keys", ()))
    return findings


def _key_name_findings(names: Sequence[str]) -> Iterator[Finding]:
    """Warn of variables that hold something else by their names: whatever they hold is sent to the gateway."""
    for place, name in enumerate(names):
        if name != REDACTED and not name.upper().endswith(_KEY_NAME_ENDS):
            yield Finding(
                ("gateway", "api_keys", place),
                f"gateway.api_keys: {name[:60]!r} is not the name of a key, and its value would be sent to the gateway",
                f"name a variable that ends in {', '.join(_KEY_NAME_ENDS[:-1])} or {_KEY_NAME_ENDS[-1]}",
                Severity.WARNING,
            )


def _base_url_findings(base_url: str) -> Iterator[Finding]:
    """Find what is wrong or probably a mistake in an address; only its host is shown."""
    path = ("gateway", "base_url")
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        yield Finding(path, "gateway.base_url: this address has no host, or an invalid port")
        return
    if parts.username is not None or parts.password is not None:
        yield Finding(
            path, "gateway.base_url: an address must not contain a user name or a password", KEY_HINT
        )
    if parts.query or parts.fragment:
        yield Finding(path, "gateway.base_url: the address must end before '?' and '#'")
    if host == TEST_HOST:
        message = f"gateway.base_url: {TEST_HOST} is the vendor's test environment"
        hint = f"one of the API's documents shows it by mistake; the API is at {DEFAULT_BASE_URL}"
        yield Finding(path, message, hint, Severity.WARNING)
    if unencrypted_host(base_url) is not None:
        message = f"gateway.base_url: the key would travel to {host} unencrypted"
        yield Finding(path, message, "write https://", Severity.WARNING)


def _model_findings(value: Mapping[str, Json], models: Collection[str]) -> Iterator[Finding]:
    """Warn of limits and defaults for models that are probably misspelled: they would apply to nothing."""
    for section in ("limits", "defaults"):
        for model in value.get(section, {}).get("models", {}):
            if model not in models and (hint := did_you_mean(model, models)):
                path = (section, "models", model)
                message = f"{section}.models: no schema knows the model {model[:60]!r}"
                yield Finding(path, message, hint, Severity.WARNING)


def read_price_file(path: Path, today: date | None, report: ProblemHandler) -> PriceTable | None:
    """
    Read a price table, and report what is wrong with it; None if it has errors.

    Args:
        today: In UTC; a table that was last checked long ago gets a warning. None for no such warnings.

    Raises:
        ManifestError: Nothing can be read; it has the problem.
    """
    problems: list[Problem] = []
    entry = open_document(path, problems.append, has_jobs=False).header
    table, findings = read_price_table(entry.value, today)
    problems += entry.problems(findings)
    for problem in problems:
        report(problem)
    return None if any(problem.severity is Severity.ERROR for problem in problems) else table


def read_prices_key(
    value: Json, folder: Path, today: date, report: ProblemHandler
) -> tuple[PriceTable | None, list[Finding]]:
    """
    Read the key ``prices`` of a manifest: a table, or the name of a file with one.

    Problems in the file are reported with their positions there; findings are about the manifest.
    """
    if not isinstance(value, str):
        return read_price_table(value, today, path=("prices",))
    try:
        return read_price_file(folder / value, today, report), []
    except ManifestError as error:
        why = error.problems[0].message if error.problems else error.message
        return None, [Finding(("prices",), f"prices: {value!r}: {why}", f"looked for {folder / value}")]


def with_own_schemas(document: Document, report: ProblemHandler) -> Catalog:
    """Add the schemas that a manifest names to the catalog; report files that can't be used, with positions in them."""
    catalog, names = load_catalog(), document.header.value["schemas"]
    if not isinstance(names, list):
        return catalog
    own: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue

        def refuse(message: str, hint: str | None = None, index: int = index) -> None:
            report(document.header.problem(Finding(("schemas", index), f"schemas: {message}", hint)))

        path = document.path.parent / name
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            refuse(f"{name!r} can't be read: {error.strerror or error}", f"looked for {path}")
            continue
        except json.JSONDecodeError as error:
            report(
                Problem(
                    Severity.ERROR, Position(str(path), error.lineno, error.colno), f"not JSON: {error.msg}"
                )
            )
            continue
        except (ValueError, RecursionError):
            refuse(f"{name!r} is not JSON in UTF-8, or too deep")
            continue
        findings = schema_findings(value)
        for finding in findings:
            report(_located(path, finding))
        if findings:
            continue
        if (short := short_name(path)) in own or short in catalog.names or short == "any":
            refuse(f"there is a schema {short!r} already", "give the file another name")
            continue
        own[short] = completed(value)
    return catalog.with_schemas(own) if own else catalog


def _located(path: Path, finding: Finding) -> Problem:
    """Add the position to a finding about a JSON file, which is YAML too."""
    try:
        header = open_document(path, lambda _problem: None).header
    except ManifestError:
        return Problem(finding.severity, Position(str(path)), finding.message, hint=finding.hint)
    return header.problem(finding)


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """
    Merge one mapping into another, without changing either.

    Mappings are merged, lists and scalars replaced, and null removes the key.

    >>> merge({"size": "720P", "style": {"a": 1, "b": 2}}, {"size": None, "style": {"b": 3}, "images": ["x"]})
    {'style': {'a': 1, 'b': 3}, 'images': ['x']}
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif type(value) is dict:
            below = merged.get(key)
            merged[key] = merge(below if type(below) is dict else {}, value)
        else:
            merged[key] = value
    return merged


class DefaultsMerger:
    """The defaults of one manifest, merged once for each model: those of a model replace those for all."""

    def __init__(self, defaults: Defaults) -> None:
        self._for_all = merge({}, defaults.request)
        self._by_model = {name: merge(self._for_all, over) for name, over in defaults.models.items()}
        self._metadata = merge({}, defaults.metadata)
        self.is_literal = is_literal([self._metadata, self._for_all, list(self._by_model.values())])
        """Whether nothing in the defaults is a placeholder."""

    def model_of(self, request: Mapping[str, Json]) -> Json:
        """Return the model of a request, or else of the defaults; it may be a placeholder."""
        return request["model"] if "model" in request else self._for_all.get("model")

    def merge_request(self, request: Mapping[str, Json], model: Json) -> dict[str, Json]:
        """Merge a request into the defaults for its model."""
        defaults = self._by_model.get(model) if isinstance(model, str) else None
        return merge(self._for_all if defaults is None else defaults, request)

    def has_model(self, model: Json) -> bool:
        """Return whether there are defaults for this model alone."""
        return isinstance(model, str) and model in self._by_model

    def merge_metadata(self, metadata: Mapping[str, Json]) -> dict[str, Json]:
        """Merge a job's metadata into the defaults."""
        return merge(self._metadata, metadata)


def is_literal(value: Json) -> bool:
    """
    Return whether rendering would leave a value as it is: no dollar sign and no null in it.

    >>> is_literal({"prompt": "A kitten", "media": [{"url": "https://example.com/a.png"}]})
    True
    >>> is_literal({"prompt": "${prompt}"})
    False
    """
    kind = type(value)
    if kind is str:
        return "$" not in value
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return value is not None
    for item in value:
        # The two most frequent cases are decided here, since a call costs more than all of the rest.
        kind = type(item)
        if kind is str:
            if "$" in item:
                return False
        elif item is None or ((kind is dict or kind is list) and not is_literal(item)):
            return False
    return True
