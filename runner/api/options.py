"""What the user asks of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import force_setattr, replace

from runner.core.model import Json, OnChanged
from runner.core.money import Money, parse_amount, parse_money
from runner.core.sharding import Shard, find_shard, parse_shard
from runner.core.stop import MaxFailures, parse_max_failures
from runner.core.units import next_time, parse_clock, parse_duration, parse_rate
from runner.core.where import Condition, parse_condition
from runner.errors import UsageError


class IfLocked(StrEnum):
    """What to do if another process is using the run directory."""

    FAIL = "fail"
    WAIT = "wait"
    SKIP = "skip"
    """Fail as well; the command line then exits with 0."""


class RunOptions(Struct, frozen=True, kw_only=True):
    """
    How to run. Each field has the meaning of the command-line option of its name, and here is its only default.

    Texts are converted, as on the command line; so the types below are those of the fields afterwards.

    Attributes:
        real_time: A simulated run has the manifest's rates and waits.
        scenario: The simulator's scenario, by name or path; only for simulated runs.
        job: Only jobs whose id matches this shell pattern.
        where: Only jobs that meet all these conditions, such as "split=test": one, or several (`run`, `resume`, `rerun`, plans).
        sample: Only this many of these jobs, always the same ones.
        max_failures: Jobs that may end without a video in this process: a number, a share of those that ended such as 0.1,
            or "off" for any number; None stops after 20 in a row.
        max_runtime: How long jobs are submitted, counted from the call: in seconds, or a text such as "1h"; None for no
            limit.
        stop_at: Until when jobs are submitted: a local time such as "06:30", or seconds since 1970; None for no limit.
        drain_time: How long jobs that were submitted are polled and downloaded after that, as `max_runtime`.
        trust: Start commands that only the run directory names (`resume`, `rerun`).
        adopt_results: Take over what the results know and ``run.db`` does not, where such a directory is else refused.
        verify: Download files again that are gone or were changed (`resume`).
        new: Begin a new run even if the manifest was run elsewhere.
        catch_up: First fetch what older runs of the series paid for (`--no-catch-up`).
        keep_runs: Delete older runs of the series, all but the newest N, this one included; see `series`.
        keep_days: Delete older runs of the series, all but those of the last N days.
        shard: Only the jobs of one shard of the run, with its part of the limits; a `Shard`, or a text such as "3/16" or "auto".
        journal: The URL of the journal that keeps the run off this machine (`run`); None for none, or the one that it has.
        assets: The URL of an object store that the videos are uploaded to (`run`); None for none, or the one that the run has.
        keep_local: Keep the files here, too, after they were uploaded.
        per_shard: `limit`, `max_failures`, `max_cost` and the budgets of a day and a month are meant for the shard alone.
        max_cost: What this process may spend at most, such as "20 USD"; "20" in the currency of the budget or the prices.
        yes: Submit without asking, whatever it costs; only the command line asks.
        var: Variables, over those of the manifest.
        base_url: Over the environment's and the manifest's.
        env_file: A file of variables in place of ``.env`` beside the manifest.
        submit_rate: Over the manifest's ``limits``, as are `poll_rate`, `in_flight` and `downloads`: jobs a second, or a
            text such as "60/min".

    Raises:
        UsageError: A value is none that the option takes.

    >>> RunOptions(max_runtime="1h", submit_rate="60/min", max_failures="5%").max_runtime
    3600.0
    """

    simulate: bool = False
    real_time: bool = False
    scenario: str | None = None
    limit: int | None = None
    job: str | None = None
    where: tuple[Condition, ...] = ()
    sample: int | None = None
    retry_failed: bool = False
    skip_invalid: bool = False
    strict: bool = False
    on_changed: OnChanged = OnChanged.ERROR
    max_failures: MaxFailures = None
    max_runtime: float | None = None
    stop_at: float | None = None
    drain_time: float = 600.0
    if_locked: IfLocked = IfLocked.FAIL
    trust: bool = False
    adopt_results: bool = False
    verify: bool = False
    new: bool = False
    catch_up: bool = True
    keep_runs: int | None = None
    keep_days: int | None = None
    shard: Shard | None = None
    per_shard: bool = False
    var: Mapping[str, Json] = field(default_factory=dict)
    journal: str | None = None
    assets: str | None = None
    keep_local: bool = False
    base_url: str | None = None
    env_file: Path | None = None
    submit_rate: float | None = None
    poll_rate: float | None = None
    in_flight: int | None = None
    downloads: int | None = None
    max_cost: Money | None = None
    yes: bool = False

    def after(self, elapsed_s: float) -> RunOptions:
        """
        Return the options with what is left of `max_runtime` after some time.

        >>> RunOptions(max_runtime=60.0).after(45.0).max_runtime
        15.0
        """
        if self.max_runtime is None:
            return self
        return replace(self, max_runtime=max(0.0, self.max_runtime - elapsed_s))

    def __post_init__(self) -> None:
        """Convert the values that have a text form, and check all of them, as the command line does."""
        for name, read in _TEXT_FORMS.items():
            text = getattr(self, name)
            if isinstance(text, str):
                try:
                    force_setattr(self, name, read(text))
                except ValueError as error:
                    raise _usage_error(name, str(error)) from None
        try:
            conditions = tuple(map(_condition, self.where))
        except (TypeError, ValueError) as error:
            raise _usage_error("where", str(error)) from None
        force_setattr(self, "where", conditions)
        try:
            for name, kind in _KINDS.items():
                value = getattr(self, name)
                converted = convert(value, kind) if value is not None else None
                if converted is not value:
                    force_setattr(self, name, converted)
        except ValidationError as error:
            raise _usage_error(name, f"{value!r}: {_lower(str(error))}") from None


def _condition(value: Condition | str) -> Condition:
    return value if isinstance(value, Condition) else parse_condition(value)


def option_name(field_name: str) -> str:
    """
    Return a field of `RunOptions` as the command line writes it.

    >>> option_name("max_runtime"), option_name("catch_up")
    ('--max-runtime', '--no-catch-up')
    """
    return "--no-catch-up" if field_name == "catch_up" else f"--{field_name.replace('_', '-')}"


def _usage_error(name: str, message: str) -> UsageError:
    return UsageError(f"{name} {message}", hint=f"it takes what `runner run {option_name(name)}` takes")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def parse_max_cost(text: str) -> Money:
    """
    Parse an amount whose currency may be left out, for that of the budget or the prices.

    >>> str(parse_max_cost("20 USD")), parse_max_cost("20").currency
    ('20.00 USD', '')

    Raises:
        ValueError: It is not an amount.
    """
    return Money(parse_amount(text), "") if text.strip()[-1:].isdigit() else parse_money(text)


def next_moment(text: str) -> float:
    """
    Return the next moment at which the local clock shows a time such as "06:30", in seconds since 1970.

    Raises:
        ValueError: The text is not a time of day.
    """
    return next_time(parse_clock(text), datetime.now().astimezone()).timestamp()


def read_shard(text: str) -> Shard:
    """
    Return the shard that a text such as "3/16" names, or the one that a scheduler gave to this process for "auto".

    Raises:
        ValueError: The text is not a shard, or no scheduler's variables name one.
    """
    return find_shard(os.environ) if text == "auto" else parse_shard(text)


def _one_of(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(text: str) -> StrEnum:
        if text not in list(kind):
            raise ValueError(f"{text[:60]!r} is not one of {', '.join(map(repr, map(str, kind)))}")
        return kind(text)

    return read


_TEXT_FORMS: Mapping[str, Callable[[str], Any]] = {
    "max_runtime": parse_duration,
    "max_cost": parse_max_cost,
    "drain_time": parse_duration,
    "stop_at": next_moment,
    "submit_rate": parse_rate,
    "poll_rate": parse_rate,
    "max_failures": parse_max_failures,
    "on_changed": _one_of(OnChanged),
    "if_locked": _one_of(IfLocked),
    "env_file": Path,
    "shard": read_shard,
    "where": lambda text: (parse_condition(text),),
}
_Count = Annotated[int, Meta(ge=1)]
_CountOr0 = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]
_Rate = Annotated[float, Meta(gt=0)]
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            "simulate",
            "real_time",
            "retry_failed",
            "skip_invalid",
            "strict",
            "trust",
            "adopt_results",
            "verify",
            "new",
            "per_shard",
            "keep_local",
            "catch_up",
            "yes",
        ),
        bool,
    ),
    "limit": _CountOr0,
    "keep_days": _CountOr0,
    **dict.fromkeys(("keep_runs", "in_flight", "downloads", "sample"), _Count),
    **dict.fromkeys(("max_runtime", "drain_time", "stop_at"), _Seconds),
    **dict.fromkeys(("submit_rate", "poll_rate"), _Rate),
    **dict.fromkeys(("scenario", "job", "base_url", "journal", "assets"), str),
    "var": dict[str, Any],
    "shard": Shard,
}

DEFAULT_OPTIONS = RunOptions()
