"""What one attempt at a job costs: reserved before it is sent, then kept, released or settled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import Struct, field

from runner.core.money import format_money, from_nanos, nanos_text, round_up, to_nanos
from runner.core.prices import Quote, Unit, utc_day_text

_EXTRA_S = 0.25
"""A file is a few frames longer than the whole seconds that are billed."""


class CostState(StrEnum):
    """What became of a reservation."""

    RESERVED = "reserved"
    """The attempt has not ended."""
    UNCERTAIN = "uncertain"
    """There may be a paid task: kept until a person decides."""
    SETTLED = "settled"
    """A video was made."""
    FAILED = "failed"
    """The task failed; the vendor promises no refund."""
    RELEASED = "released"
    """Nothing was charged."""


class Cost(Struct, frozen=True, kw_only=True, gc=False):
    """
    The cost of one attempt; amounts are in billionths of the currency.

    Attributes:
        at: When it was reserved, in seconds since 1970; it belongs to that day (UTC).
        rate: Price of one unit, as decimal text.
        has_input: Whether the seconds of videos in the request are billed too.
        settled: What was charged as far as is known; None while that is open.
        basis: How the amount is known: ``reserved``, ``usage``, ``video``, ``price``, ``assumed``, ``released`` or ``refunded``.
    """

    number: int
    at: float
    currency: str
    reserved: int
    unit: Unit
    rate: str
    has_input: bool = False
    state: CostState = CostState.RESERVED
    settled: int | None = None
    basis: str = "reserved"

    @property
    def amount(self) -> int:
        """What counts against budgets."""
        return self.reserved if self.settled is None else self.settled

    @property
    def day(self) -> str:
        """The day that it belongs to, as text."""
        return utc_day_text(self.at)

    @property
    def is_open(self) -> bool:
        """Whether the attempt has not ended."""
        return self.state is CostState.RESERVED


def reserve(quote: Quote, *, number: int, at: float) -> Cost:
    """Return the cost of an attempt that is about to be sent: the highest price of its request."""
    reserved, rate = _reserved(quote.highest, quote.rate)
    return Cost(
        number=number,
        at=at,
        currency=quote.currency,
        reserved=reserved,
        unit=quote.unit,
        rate=rate,
        has_input=quote.has_input,
    )


# Most jobs of a run have one of few prices, and decimals take longer than the rest.
@lru_cache(maxsize=1024)
def _reserved(highest: Decimal, rate: Decimal) -> tuple[int, str]:
    return to_nanos(highest), str(rate)


@lru_cache(maxsize=1024)
def _price(rate: str, units: float) -> int:
    return to_nanos(Decimal(rate) * _whole(units))


def charged(cost: Cost, usage: Mapping[str, Any] | None, video_s: float | None) -> tuple[int, str]:
    """
    Return what a task cost, in billionths, and how that is known: by its usage, else by its video, else as reserved.

    >>> cost = Cost(number=1, at=0.0, currency="USD", reserved=600_000_000, unit=Unit.SECOND, rate="0.05")
    >>> charged(cost, {"seconds": 5}, None), charged(cost, None, 4.04), charged(cost, None, None)
    ((250000000, 'usage'), (200000000, 'video'), (600000000, 'reserved'))
    """
    if cost.basis == "assumed":
        return cost.reserved, "assumed"
    rate = cost.rate
    match cost.unit:
        case Unit.SECOND:
            if usage and (used := _number(usage.get("seconds"))) is not None:
                has_input, input_s = cost.has_input, _number(usage.get("input_seconds"))
                if not has_input or input_s is not None:
                    return _price(rate, _whole(used) + _whole(input_s or 0 if has_input else 0)), "usage"
            elif video_s is not None and not cost.has_input:
                return _price(rate, video_s), "video"
        case Unit.VIDEO:
            return _price(rate, 1), "price"
        case Unit.MILLION_TOKENS if usage:
            tokens = _number(usage.get("completion_tokens", usage.get("total_tokens")))
            if tokens is not None:
                return to_nanos(round_up(Decimal(rate) * Decimal(str(tokens)) / 10**6)), "usage"
    return cost.reserved, "reserved"


def _whole(seconds: float) -> int:
    return max(0, math.ceil(seconds - _EXTRA_S))


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < math.inf else None


SPEND_PARTS = ("settled", "failed", "uncertain", "reserved")
"""The states of costs that count, as the fields of `Spend` are called."""


class Spend(Struct, frozen=True, kw_only=True):
    """
    What was spent in one currency, in billionths.

    Attributes:
        settled: For videos.
        failed: For tasks that failed.
        uncertain: For attempts of which nobody knows whether they were charged.
        reserved: For attempts that have not ended.
    """

    currency: str
    settled: int = 0
    failed: int = 0
    uncertain: int = 0
    reserved: int = 0

    def __add__(self, other: Spend) -> Spend:
        """Add up two in the same currency."""
        amounts = {name: getattr(self, name) + getattr(other, name) for name in SPEND_PARTS}
        return Spend(currency=self.currency, **amounts)

    @property
    def spent(self) -> int:
        """What was or may have been charged."""
        return self.settled + self.failed + self.uncertain

    def __str__(self) -> str:
        """Return a clause such as ``spent 41.20 USD, of which 3.10 uncertain and 1.60 for tasks that failed``."""
        parts = []
        if self.uncertain:
            parts.append(f"{nanos_text(self.uncertain)} uncertain")
        if self.failed:
            parts.append(f"{nanos_text(self.failed)} for tasks that failed")
        text = f"spent {format_money(from_nanos(self.spent), self.currency)}"
        text += f", of which {' and '.join(parts)}" if parts else ""
        if self.reserved:
            text += f"; {nanos_text(self.reserved)} reserved for jobs that have not ended"
        return text

    def json(self) -> dict[str, str]:
        """Return the amounts as decimal text, by name."""
        amounts = {name: getattr(self, name) for name in ("spent", *SPEND_PARTS)}
        return {
            "currency": self.currency,
            **{name: nanos_text(amount) for name, amount in amounts.items()},
        }


class SpentOn(Struct, frozen=True):
    """
    What was spent on something, such as a model, in billionths.

    Attributes:
        amount: What counts against budgets.
        estimate: What was reserved for the same attempts.
    """

    name: str
    currency: str
    attempts: int
    amount: int
    estimate: int


class CostSummary(Struct, frozen=True):
    """What a run cost: by currency, and by model and by day (UTC) of the reservation."""

    spend: tuple[Spend, ...] = ()
    by_model: tuple[SpentOn, ...] = ()
    by_day: tuple[SpentOn, ...] = ()


class CostSummaryBuilder(Struct):
    """
    Adds up costs one by one, in constant memory.

    Attributes:
        sums: By model, day, currency and state: attempts, what counts against budgets, and what was reserved.
    """

    sums: dict[tuple[str, str, str, str], list[int]] = field(default_factory=dict)

    def add(self, model: str, cost: Cost) -> None:
        """Add the cost of an attempt."""
        if cost.state is not CostState.RELEASED:
            key = model, cost.day, cost.currency, cost.state._value_
            _add_to(self.sums, key, (1, cost.amount, cost.reserved))

    def merge(self, other: CostSummaryBuilder) -> None:
        """Add the costs of another builder."""
        for key, entry in other.sums.items():
            _add_to(self.sums, key, entry)

    def summary(self) -> CostSummary:
        """Return the sums so far."""
        spend: dict[str, dict[str, int]] = {}
        models: dict[tuple[str, str], list[int]] = {}
        days: dict[tuple[str, str], list[int]] = {}
        for (model, day, currency, state), entry in self.sums.items():
            by_state = spend.setdefault(currency, {})
            by_state[state] = by_state.get(state, 0) + entry[1]
            _add_to(models, (model, currency), entry)
            _add_to(days, (day, currency), entry)
        return CostSummary(
            tuple(Spend(currency=name, **by_state) for name, by_state in sorted(spend.items())),
            tuple(SpentOn(*key, *entry) for key, entry in sorted(models.items())),
            tuple(SpentOn(*key, *entry) for key, entry in sorted(days.items())),
        )


_Key = TypeVar("_Key", bound=tuple[str, ...])


def _add_to(sums: dict[_Key, list[int]], key: _Key, entry: Sequence[int]) -> None:
    attempts, amount, reserved = entry
    total = sums.get(key)
    if total is None:
        sums[key] = [attempts, amount, reserved]
        return
    total[0] += attempts
    total[1] += amount
    total[2] += reserved


def cost_json(costs: Iterable[Cost]) -> dict[str, Any] | None:
    """
    Return the cost of a job for its result line: all attempts that were, or may have been, charged.

    ``settled`` is null while no attempt of the job has ended; ``basis`` is that of the newest attempt.
    """
    newest, reserved, settled = None, 0, None
    for cost in costs:
        if cost.state is CostState.RELEASED:
            continue
        if newest is not None and newest.currency != cost.currency:
            reserved, settled = 0, None
        newest, reserved = cost, reserved + cost.reserved
        if cost.settled is not None:
            settled = (settled or 0) + cost.settled
    if newest is None:
        return None
    return _texts(reserved, settled, newest.currency, newest.basis).copy()


@lru_cache(maxsize=1024)
def _texts(reserved: int, settled: int | None, currency: str, basis: str) -> dict[str, Any]:
    return {
        "reserved": nanos_text(reserved),
        "settled": None if settled is None else nanos_text(settled),
        "currency": currency,
        "basis": basis,
    }
