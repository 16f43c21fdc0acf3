"""
Whether a job may be submitted now, of which model and with which key; and what each answer teaches.

The limits that bind a submission meet here: the pace of the run and of each
model, the tasks that exist at once, the health of the keys, and the breaker that
keeps an outage from putting a whole batch in doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from runner.core.circuit_breaker import FORBIDDEN_TO_STOP, Breaker, Flow, Standstill
from runner.core.key_pool import Keyring, UseKey, WaitForKey
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    KeyRefused,
    NoChannel,
    NotSent,
    Rejected,
    SubmitOutcome,
    Throttled,
    WrongAddress,
)
from runner.core.pacing import Pace, Pacer
from runner.core.round_robin import Blocked, Bound, Lane, ModelLane, choose
from runner.core.settings import Limits
from runner.core.stop import Stop, StopReason
from runner.core.value import frozen
from runner.engine.pending_jobs import Window

KEY_REST_S = 5.0
"""How long a throttled key rests while others of the pool go on, where the server names no time."""

LOOK_AGAIN_S = 1.0

_WITHDRAWN = Throttled(Failure(FailureClass.INTERRUPTED, "withdrawn before it was sent"))
"""What the breaker hears of a submission that never left: it says nothing about the gateway."""


@frozen
class Admitted:
    """Submit a job of this model with this key now."""

    model: str
    key: str


@frozen
class Held:
    """
    Nothing may be submitted now.

    Attributes:
        until: When to look again; None where only an event can change it.
        why: Which limit binds, in words.
    """

    until: float | None
    why: str


class Admission:
    """
    The limits on submissions, for one run. Every method takes ``now``, a monotonic reading.

    Args:
        learned: Rates that an earlier run found to be allowed, by model; under "" for the whole run.
        patience_s: How long the gateway may take nothing before the run stops.
    """

    def __init__(
        self, limits: Limits, keyring: Keyring, *, learned: Mapping[str, float], patience_s: float
    ) -> None:
        self._limits = limits
        self._keyring = keyring
        self.pacer = Pacer(limits.submit_per_s, learned_per_s=learned.get(""))
        self._pacers = {
            model: Pacer(own.submit_per_s, learned_per_s=learned.get(model))
            for model, own in limits.models.items()
            if own.submit_per_s is not None
        }
        self.breaker = Breaker()
        self.standstill = Standstill(patience_s)
        self._holders: dict[int, str] = {}
        self._in_flight_of: Counter[str] = Counter()
        self._under_way: dict[int, float] = {}
        self._last_model: str | None = None

    @property
    def in_flight(self) -> int:
        """Remote tasks that exist, or may come to exist."""
        return len(self._holders)

    def admit(self, window: Window, now: float) -> Admitted | Held:
        """Choose the model whose turn it is and the key to use, or say what holds everything back."""
        if self.in_flight >= self._limits.in_flight:
            return Held(None, f"in_flight {self._limits.in_flight}")
        if not self.breaker.may_submit(now):
            # An answer, a probe or the end of a wait opens it; the last is looked for now and then.
            return Held(now + LOOK_AGAIN_S, _flow_in_words(self.breaker))
        run = Lane(self.in_flight, self._limits.in_flight, self.pacer.opens_at)
        turn = choose(run, self._lanes(window, now), after=self._last_model, now=now)
        if isinstance(turn, Blocked):
            return self._blocked(turn, window, now)
        choice = self._keyring.pick(now)
        if isinstance(choice, UseKey):
            self._last_model = turn.model
            return Admitted(turn.model, choice.fingerprint)
        return Held(choice.until if isinstance(choice, WaitForKey) else None, "every key rests")

    def _lanes(self, window: Window, now: float) -> list[ModelLane]:
        lanes = []
        for model in window.models:
            own = self._limits.models.get(model)
            pacer = self._pacers.get(model)
            lanes.append(
                ModelLane(
                    self._in_flight_of[model],
                    None if own is None else own.in_flight,
                    None if pacer is None else pacer.opens_at,
                    model,
                    window.has_ready(model, now),
                )
            )
        return lanes

    def _blocked(self, blocked: Blocked, window: Window, now: float) -> Held:
        match blocked.by:
            case Bound.RATE:
                return Held(blocked.until, _pace_in_words(self.pacer, now))
            case Bound.MODEL_RATE:
                return Held(blocked.until, "submit rate of each model")
            case Bound.MODEL_IN_FLIGHT:
                return Held(window.next_due(now), "in_flight of each model")
            case _:
                return Held(window.next_due(now), "waiting before the next try")

    def sent(self, seq: int, model: str, now: float) -> None:
        """Note that a job's submission begins."""
        self.pacer.take(now)
        pacer = self._pacers.get(model)
        if pacer is not None:
            pacer.take(now)
        self._under_way[seq] = now
        self.breaker.sent(now)
        self.occupied(seq, model)

    def occupied(self, seq: int, model: str) -> None:
        """Note a remote task, or one that may come to exist."""
        self._holders[seq] = model
        self._in_flight_of[model] += 1

    def released(self, seq: int) -> None:
        """Note that a job's remote task has ended, or never came to exist; a second time changes nothing."""
        model = self._holders.pop(seq, None)
        if model is not None:
            self._in_flight_of[model] -= 1

    def withdrawn(self, seq: int, doubt: Failure | None, now: float) -> None:
        """
        Note that a submission ended on our side, without an answer of the gateway's.

        Args:
            doubt: Why the job is in doubt now; None where nothing has left.
        """
        if self._under_way.pop(seq, None) is not None:
            self.breaker.answered(_WITHDRAWN if doubt is None else Ambiguous(doubt), now)
        self.released(seq)

    def heard(self, seq: int, model: str, key: str, outcome: SubmitOutcome, now: float) -> Stop | None:
        """Learn from an answer; return why the run must stop submitting, if it must."""
        sent_at = self._under_way.pop(seq, now)
        self.breaker.answered(outcome, now)
        if not isinstance(outcome, Accepted | Rejected):
            self.standstill.refused(outcome.failure.message, now)
        match outcome:
            case Accepted() | Rejected():
                self.standstill.moved()
                for pacer in self._pacers_of(model):
                    pacer.accepted(now, now - sent_at)
            case Throttled(_, retry_after_s):
                self._throttled(model, key, now, sent_at, retry_after_s)
            case NoChannel():
                self.pacer.hold(now)
            case KeyRefused(failure):
                self._keyring.refused(key, failure)
                return key_stop(failure) if self._keyring.is_spent else None
            case WrongAddress(failure):
                return Stop(
                    StopReason.WRONG_ADDRESS,
                    f"the gateway redirects submissions, so its address is wrong: {failure.message}",
                    "correct gateway.base_url in the manifest, or give --base-url",
                )
            case NotSent() | Ambiguous():
                self.pacer.hold(now)
        if self.breaker.is_forbidden:
            return Stop(
                StopReason.FORBIDDEN,
                f"{FORBIDDEN_TO_STOP} jobs in a row were refused with 403",
                "check that the key may use these models, then go on with the failed ones: --retry-failed",
            )
        return None

    def learned(self) -> dict[str, float]:
        """Name the rates that were found to be allowed, for the next run."""
        pacers = {"": self.pacer, **self._pacers}
        return {name: p.learned_per_s for name, p in pacers.items() if p.learned_per_s is not None}

    def _throttled(
        self, model: str, key: str, now: float, sent_at: float, retry_after_s: float | None
    ) -> None:
        if self._keyring.is_pool:
            # Limits are per account: while this key rests, another account's may go on.
            self._keyring.throttled(key, now + (retry_after_s or KEY_REST_S))
            retry_after_s = None
        for pacer in self._pacers_of(model):
            pacer.throttled(now, sent_at=sent_at, retry_after_s=retry_after_s)

    def _pacers_of(self, model: str) -> tuple[Pacer, ...]:
        own = self._pacers.get(model)
        return (self.pacer,) if own is None else (self.pacer, own)


def key_stop(failure: Failure) -> Stop:
    """Say why a run stops that has no usable key left."""
    if failure.cls is FailureClass.QUOTA:
        return Stop(StopReason.QUOTA, f"the account can't pay: {failure.message}", "top it up, then go on")
    return Stop(StopReason.AUTH, f"the key was refused: {failure.message}", "set a valid key, then go on")


def _pace_in_words(pacer: Pacer, now: float) -> str:
    match pacer.binding(now):
        case Pace.PAUSED:
            return "pause that the gateway asked for"
        case Pace.LEARNED:
            return f"rate learned from 429s ({pacer.per_s:.3g}/s)"
        case _:
            return f"submit rate ({pacer.per_s:.3g}/s)"


def _flow_in_words(breaker: Breaker) -> str:
    match breaker.flow:
        case Flow.OPEN:
            return "the gateway is out: waiting until it answers again"
        case Flow.HALF_OPEN:
            return "after an outage: one job at a time"
        case _:
            return "waiting for the answers to the last submissions"
