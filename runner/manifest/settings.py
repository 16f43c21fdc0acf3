"""The header of a manifest, and the settings of a run from those of its keys that fit the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct, field

from runner.core.model import Json
from runner.core.money import Money, parse_money
from runner.core.prices import PriceTable
from runner.core.problem import Finding, JsonPath, Severity, format_path
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

Values = Mapping[str, Json]
_Value = TypeVar("_Value")


class Defaults(Struct, frozen=True, kw_only=True):
    """
    Values for jobs that have none of their own, as written.

    Attributes:
        request: For every job.
        models: By model; they replace those of `request`.
        metadata: For every job.
    """

    request: Mapping[str, Json] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)


class Variables(Struct, frozen=True):
    """
    The variables of a manifest with their values.

    Attributes:
        values: All of them, the date included.
        overrides: Those of the command line: no job's own variable replaces them.
        used: Names that placeholders use or `vars` declare, as far as the manifest was read.
    """

    values: Mapping[str, Json]
    overrides: Mapping[str, Json]
    used: set[str] = field(default_factory=set)


class Header(Struct, frozen=True, kw_only=True):
    """
    The keys of a manifest except `jobs`.

    Attributes:
        name: Of the run directory; safe as the name of a directory.
        name_template: The name with its placeholders, as the manifest has it; None if it has none.
        values: All keys that fit the schema.
        prices: The price table that it has or names.
    """

    name: str
    name_template: str | None = None
    variables: Variables
    values: Mapping[str, Json] = field(default_factory=dict)
    defaults: Defaults = Defaults()
    prices: PriceTable | None = None

    @property
    def settings(self) -> Settings:
        """What the run needs to know; read only here, since checking the jobs does not need it."""
        return read_settings(self.values, self.name, self.prices)[0]


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


class _AmountReader(Struct):
    """Reads amounts, and collects what is wrong with them."""

    findings: list[Finding] = []

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


def _positive_size(text: str) -> int:
    size = parse_size(text)
    if size == 0:
        raise ValueError(f"{text!r} must be more than 0B: no video would be downloaded")
    return size


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
        reader.read(_positive_size, assets["max_size"], ("assets", "max_size"))
        if "max_size" in assets
        else None
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
