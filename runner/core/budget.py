"""
The arithmetic of budgets, and what each change of a job does to the cost of its attempt.

Everything is in whole billionths of a currency, so that no sum is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from runner.core.cost import Cost, CostState, charged
from runner.core.lifecycle import State
from runner.core.model import MAY_HAVE_PAID_TASK, FailureClass, Json

MIN_AHEAD = 256
"""Jobs whose price a run sets aside at once, however slowly it submits."""
AHEAD_S = 2
"""How long what a run sets aside lasts at its pace, in seconds: twice as long as it takes to see that it is needed."""
_WINDOW_MS = 1000

_NOT_CHARGED = frozenset({"rejected", "throttled", "no_channel", "refused", "not_sent"})
"""Outcomes of attempts that made no task."""


def next_cost(
    cost: Cost,
    state: State,
    *,
    outcome: str | None = None,
    failure: FailureClass | None = None,
    usage: Mapping[str, Json] | None = None,
    video_s: float | None = None,
    refunds_failed: bool = False,
) -> Cost:
    """
    Return the cost of an attempt after its job changed.

    Args:
        state: The job's new state.
        outcome: The attempt's, if it is what changed.
        failure: Why the job failed.
        usage: What its task consumed according to the API.
        video_s: The length of its video according to the file.
        refunds_failed: Whether tasks that failed count as not charged.
    """
    if outcome in _NOT_CHARGED:
        return replace(cost, state=CostState.RELEASED, settled=0, basis="released")
    match state:
        case State.SUCCEEDED | State.UNDELIVERED:
            settled, basis = charged(cost, usage, video_s)
            return replace(cost, state=CostState.SETTLED, settled=settled, basis=basis)
        case State.UNCERTAIN:
            return replace(cost, state=CostState.UNCERTAIN)
        case State.SUBMITTED | State.DOWNLOADING | State.TIMED_OUT:
            if cost.state in (CostState.UNCERTAIN, CostState.FAILED):
                # Somebody found its task, or a lost one is known again.
                return replace(cost, state=CostState.RESERVED, settled=None, basis="reserved")
            return cost
        case State.FAILED if failure in MAY_HAVE_PAID_TASK:
            return replace(cost, state=CostState.UNCERTAIN)
        case State.FAILED:
            if refunds_failed:
                return replace(cost, state=CostState.FAILED, settled=0, basis="refunded")
            settled, basis = charged(cost, usage, None)
            return replace(cost, state=CostState.FAILED, settled=settled, basis=basis)
    return cost


def cost_state(state: State, failure: FailureClass | None) -> CostState:
    """Return what became of the cost of a job in a state, if it was charged at all."""
    match state:
        case State.SUCCEEDED | State.UNDELIVERED:
            return CostState.SETTLED
        case State.SUBMITTING | State.UNCERTAIN:
            return CostState.UNCERTAIN
        case State.FAILED | State.PENDING:
            return CostState.UNCERTAIN if failure in MAY_HAVE_PAID_TASK else CostState.FAILED
    return CostState.RESERVED


class Fit(StrEnum):
    """Whether an amount fits into a budget."""

    FITS = "fits"
    LATER = "later"
    """Not now, but perhaps once what is open is settled for less, or released."""
    NEVER = "never"


class Account(Struct):
    """
    A limit, and what counts against it.

    Attributes:
        name: As people know it, such as ``budget.run``.
        limit: None for no limit.
        used: Reserved and settled.
        open: The part of it that work in progress may still give back.

    >>> account = Account("budget.run", 100, used=80, open=30)
    >>> account.fit(20), account.fit(40), account.fit(60), account.left
    (<Fit.FITS: 'fits'>, <Fit.LATER: 'later'>, <Fit.NEVER: 'never'>, 20)
    """

    name: str
    limit: int | None
    used: int = 0
    open: int = 0

    def fit(self, amount: int) -> Fit:
        """Return whether one more amount fits."""
        if self.limit is None or self.used + amount <= self.limit:
            return Fit.FITS
        return Fit.LATER if self.used - self.open + amount <= self.limit else Fit.NEVER

    @property
    def left(self) -> int | None:
        """What may still be reserved; None for any amount."""
        return None if self.limit is None else max(0, self.limit - self.used)

    def change(self, used: int, open_: int) -> None:
        """Add to what counts against the limit, and to the part of it that is open."""
        self.used += used
        self.open += open_


def block(need: int, ask: int, left: int | None) -> int:
    """
    Return how much of what is left one run gets at once: what it asks for, but at most an eighth, so that runs share.

    It is at least what the run needs, or nothing if that does not fit.

    >>> block(10, 100, None), block(10, 100, 1000), block(10, 100, 400), block(10, 100, 30), block(10, 100, 9)
    (100, 100, 50, 10, 0)
    """
    if left is None:
        return max(need, ask)
    if need > left:
        return 0
    return max(need, min(ask, left // 8))


class ReservePace(Struct):
    """
    How fast a run reserves, and so how much it sets aside for the jobs that it submits next.

    Attributes:
        taken: What it reserved since a moment, in billionths.
        since: That moment, in seconds of any clock.
        per_s: What it reserved in a second, before.

    >>> pace = ReservePace(since=0.0)
    >>> pace.ahead(10, 0.1)
    2560
    >>> pace.taken += 20_000
    >>> pace.ahead(10, 0.2), pace.ahead(10, 2.0), pace.ahead(10, 2.1)
    (40000, 20000, 20000)
    """

    since: float
    taken: int = 0
    per_s: int = 0

    def ahead(self, price: int, now: float) -> int:
        """Return how much to set aside for jobs like one of this price."""
        if (elapsed_ms := int((now - self.since) * 1000)) >= _WINDOW_MS:
            self.since, self.taken, self.per_s = now, 0, self.taken * 1000 // elapsed_ms
        return max(price * MIN_AHEAD, AHEAD_S * max(self.per_s, self.taken))
