"""
The settings of a run, from the keys of a manifest that fit its schema, and the files that ``prices`` and ``schemas`` name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from runner.core.model import Json
from runner.core.money import Money, parse_money
from runner.core.prices import PriceTable
from runner.core.problem import Finding, JsonPath, Position, Problem, Severity, format_path
from runner.core.settings import (
    DEFAULT_KEY_NAME,
    AssetRules,
    Budget,
    CanaryPolicy,
    Check,
    Inputs,
    Limits,
    ModelLimits,
    Notify,
    OnAsset,
    PollPolicy,
    RetryPolicy,
    Settings,
    Timeouts,
)
from runner.core.units import format_duration, parse_duration, parse_rate, parse_size, parse_speed
from runner.errors import ManifestError
from runner.manifest.document import Document, ProblemHandler, open_document
from runner.schema.catalog import Catalog, completed, schema_findings, short_name
from runner.schema.price_tables import read_price_table

Values = Mapping[str, Json]
_Value = TypeVar("_Value")


def read_settings(
    header: Values, name: str, prices: PriceTable | None = None
) -> tuple[Settings, list[Finding]]:
    """
    Read the settings of a manifest that fits its schema.

    Args:
        prices: The manifest's own price table.

    Returns:
        The settings, and what the schema can't express: rates of zero, limits that contradict each other.
    """
    reader = _AmountReader()
    poll = PollPolicy(**reader.durations(header, "poll"))
    if poll.interval_s > poll.max_interval_s:
        interval, maximum = format_duration(poll.interval_s), format_duration(poll.max_interval_s)
        path = ("poll", "max_interval" if "max_interval" in header.get("poll", {}) else "interval")
        message = f"poll: the interval of {interval} is longer than max_interval, {maximum}"
        reader.findings.append(Finding(path, message))
    gateway = header.get("gateway", {})
    settings = Settings(
        name=name,
        base_url=gateway.get("base_url"),
        key_names=tuple(gateway.get("api_keys", (DEFAULT_KEY_NAME,))),
        limits=_limits(reader, header.get("limits", {})),
        poll=poll,
        timeouts=_timeouts(reader, header),
        retry=_retry(reader, header),
        assets=_assets(reader, header.get("assets", {})),
        notify=_notify(header.get("notify", ())),
        # What rejects a video has to be checked.
        checks=tuple(map(Check, dict.fromkeys((*header.get("checks", ()), *header.get("reject", ()))))),
        reject=tuple(map(Check, header.get("reject", ()))),
        on_asset=_on_asset(reader, header.get("on_asset")),
        reroll={cls: takes for cls, takes in header.get("reroll", {}).items() if takes},
        schemas=tuple(header.get("schemas", ())),
        prices=prices,
        budget=_budget(reader, header["budget"], prices) if "budget" in header else None,
        canary=_canary(reader, header["canary"]) if "jobs" in header.get("canary", {}) else None,
        inputs=_inputs(reader, header["inputs"], poll) if header.get("inputs", {}).get("upload") else None,
    )
    return settings, reader.findings


class _AmountReader:
    """Reads amounts, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def read(self, parse: Callable[[str], _Value], text: str, path: JsonPath) -> _Value | None:
        """Parse an amount; return None if it is wrong."""
        try:
            return parse(text)
        except ValueError as error:
            self.findings.append(Finding(path, f"{format_path(path)}: {error}"))
            return None

    def durations(self, header: Values, section: str) -> dict[str, float]:
        """Read all durations of a section, under their names in the settings."""
        durations: dict[str, float] = {}
        for key, text in header.get(section, {}).items():
            if (section, key) in (("retry", "attempts"), ("timeouts", "least_speed")):
                continue
            parse = parse_duration if key in ("first", "unknown_task", "base") else _positive_duration
            seconds = self.read(parse, text, (section, key))
            if seconds is not None:
                durations[f"{key}_s"] = seconds
        return durations


def _positive_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f"{text!r} must be longer than 0s")
    return seconds


def _limits(reader: _AmountReader, limits: Values) -> Limits:
    values: dict[str, Json] = {
        key: limits[key] for key in ("in_flight", "downloads", "uploads") if key in limits
    }
    for key in ("submit", "poll", "upload"):
        rate = reader.read(parse_rate, limits[key], ("limits", key)) if key in limits else None
        if rate is not None:
            values[f"{key}_per_s"] = rate
    models = {
        model: _model_limits(reader, own, ("limits", "models", model))
        for model, own in limits.get("models", {}).items()
    }
    return Limits(**values, models=models)


def _model_limits(reader: _AmountReader, limits: Values, path: JsonPath) -> ModelLimits:
    rate = reader.read(parse_rate, limits["submit"], (*path, "submit")) if "submit" in limits else None
    return ModelLimits(in_flight=limits.get("in_flight"), submit_per_s=rate)


def _timeouts(reader: _AmountReader, header: Values) -> Timeouts:
    values: dict[str, Json] = dict(reader.durations(header, "timeouts"))
    if "least_speed" in header.get("timeouts", {}):
        speed = reader.read(parse_speed, header["timeouts"]["least_speed"], ("timeouts", "least_speed"))
        if speed is not None:
            values["least_bytes_per_s"] = speed
    return Timeouts(**values)


def _retry(reader: _AmountReader, header: Values) -> RetryPolicy:
    values: dict[str, Json] = dict(reader.durations(header, "retry"))
    if "attempts" in header.get("retry", {}):
        values["attempts"] = header["retry"]["attempts"]
    return RetryPolicy(**values)


def _assets(reader: _AmountReader, assets: Values) -> AssetRules:
    values: dict[str, Json] = {}
    size = (
        reader.read(parse_size, assets["max_size"], ("assets", "max_size")) if "max_size" in assets else None
    )
    if size is not None:
        values["max_bytes"] = size
    if "hosts" in assets:
        values["hosts"] = tuple(host.lower() for host in assets["hosts"])
    return AssetRules(**values)


def _budget(reader: _AmountReader, budget: Values, prices: PriceTable | None) -> Budget:
    amounts: dict[str, Money] = {}
    for key in ("run", "day", "month", "unknown"):
        if key not in budget or (key, budget[key]) == ("unknown", "refuse"):
            continue
        amount = reader.read(parse_money, str(budget[key]), ("budget", key))
        if amount is not None:
            amounts[key] = amount
    first = next(iter(amounts), None)
    for key, amount in amounts.items():
        if amount.currency != amounts[str(first)].currency:
            message = f"budget.{key}: {amount} has another currency than {first}, {amounts[str(first)]}"
            reader.findings.append(Finding(("budget", key), message, "use one currency"))
    if prices is not None and first is not None and prices.currency != amounts[first].currency:
        message = f"budget.{first}: {amounts[first]} has another currency than the prices, {prices.currency}"
        reader.findings.append(
            Finding(
                ("budget", first), message, f"write the budget in {prices.currency}; nothing is converted"
            )
        )
    return Budget(ledger=budget.get("ledger"), failed=budget.get("failed", "charged"), **amounts)


def _canary(reader: _AmountReader, canary: Values) -> CanaryPolicy:
    policy = CanaryPolicy(jobs=canary["jobs"], succeed=canary.get("succeed", canary["jobs"]))
    if policy.succeed > policy.jobs:
        message = f"canary.succeed: {policy.succeed} of {policy.jobs} jobs can't succeed"
        reader.findings.append(Finding(("canary", "succeed"), message))
    return policy


def _inputs(reader: _AmountReader, inputs: Values, poll: PollPolicy) -> Inputs:
    path = ("inputs", "expires")
    expires_s = Inputs(upload="").expires_s
    if "expires" in inputs:
        expires_s = reader.read(_positive_duration, inputs["expires"], path) or expires_s
        if expires_s < poll.timeout_s and "public_url" not in inputs:
            least = format_duration(poll.timeout_s)
            message = f"inputs.expires: {inputs['expires']} is shorter than poll.timeout, so addresses hold for {least}"
            reader.findings.append(Finding(path, message, severity=Severity.WARNING))
    public_url = inputs.get("public_url")
    if public_url is None and inputs["upload"].startswith("file://"):
        message = "inputs.upload: the files of a folder have no address"
        hint = "name the address of the folder as public_url, or a bucket as upload"
        reader.findings.append(Finding(("inputs", "upload"), message, hint))
    return Inputs(
        upload=inputs["upload"],
        expires_s=expires_s,
        public_url=None if public_url is None else public_url.rstrip("/") + "/",
    )


def _notify(value: Json) -> tuple[Notify, ...]:
    targets = [value] if isinstance(value, dict) else value
    return tuple(
        Notify(
            on=tuple(target.get("on", ("finish",))),
            webhook=target.get("webhook"),
            command=tuple(target["command"]) if "command" in target else None,
        )
        for target in targets
    )


def _on_asset(reader: _AmountReader, value: Json) -> OnAsset | None:
    if value is None:
        return None
    hook: dict[str, Json] = {"command": value} if isinstance(value, list) else value
    limits: dict[str, Json] = {key: hook[key] for key in ("at_once",) if key in hook}
    if "timeout" in hook:
        limits["timeout_s"] = reader.read(_positive_duration, hook["timeout"], ("on_asset", "timeout"))
    return OnAsset(command=tuple(hook["command"]), **{key: item for key, item in limits.items() if item})


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


def with_own_schemas(catalog: Catalog, document: Document, report: ProblemHandler) -> Catalog:
    """Add the schemas that a manifest names to a catalog; report files that can't be used, with positions in them."""
    names = document.header.value.get("schemas")
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
