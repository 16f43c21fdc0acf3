"""
Whether a job may be submitted now, of which model and with which key; and what each answer teaches.

The limits that bind a submission meet here: the pace of the run and of each
model, the tasks that exist at once, the health of the keys, and the breaker that
keeps an outage from putting a whole batch in doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from runner.core.ending import Stop, StopReason
from runner.core.keyring import Keyring, UseKey, WaitForKey
from runner.core.model import Failure, FailureClass
from runner.core.outage import Outage
from runner.core.outcome import (
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
from runner.core.settings import Limits
from runner.engine.window import Window

KEY_REST_S = 30.0
"""How long a throttled key rests while others of the pool go on, where the server names no time."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Submit a job of this model with this key now."""

    model: str
    key: str


@dataclass(frozen=True, slots=True)
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
    """

    def __init__(self, limits: Limits, keyring: Keyring, *, learned: Mapping[str, float]) -> None:
        self._limits = limits
        self._keyring = keyring
        self.pacer = Pacer(limits.submit_per_s, learned_per_s=learned.get(""))
        self._pacers = {
            model: Pacer(own.submit_per_s, learned_per_s=learned.get(model))
            for model, own in limits.models.items()
            if own.submit_per_s is not None
        }
        self.outage = Outage()
        self.in_flight = 0
        self._in_flight_of: Counter[str] = Counter()
        self._under_way: dict[int, float] = {}
        self._last_model = ""

    def admit(self, window: Window, now: float) -> Admitted | Held:
        """Choose the model whose turn it is and the key to use, or say what holds everything back."""
        held = self._held_by_run(now)
        if held is not None:
            return held
        model = self._next_model(window, now)
        if isinstance(model, Held):
            return model
        choice = self._keyring.pick(now)
        if isinstance(choice, UseKey):
            self._last_model = model
            return Admitted(model, choice.fingerprint)
        return Held(choice.until if isinstance(choice, WaitForKey) else None, "every key rests")

    def _held_by_run(self, now: float) -> Held | None:
        if self.in_flight >= self._limits.in_flight:
            return Held(None, f"in_flight {self._limits.in_flight}")
        if not self.outage.may_submit(now, under_way=len(self._under_way), oldest_sent_at=self._oldest()):
            return Held(self.outage.look_again_at(now, self._oldest()), self.outage.why)
        if self.pacer.opens_at > now:
            return Held(self.pacer.opens_at, _pace_in_words(self.pacer, now))
        return None

    def _next_model(self, window: Window, now: float) -> str | Held:
        """Take the models in turn, so that one that is slow or full starves none."""
        until: list[float] = []
        why = ""
        for model in _after(window.models, self._last_model):
            if not window.has_ready(model, now):
                continue
            own = self._limits.models.get(model)
            if own is not None and own.in_flight is not None and self._in_flight_of[model] >= own.in_flight:
                why = why or f"in_flight {own.in_flight} of {model}"
                continue
            pacer = self._pacers.get(model)
            if pacer is not None and pacer.opens_at > now:
                until.append(pacer.opens_at)
                why = why or f"{_pace_in_words(pacer, now)} of {model}"
                continue
            return model
        due = window.next_due()
        if due is not None and due > now:
            until.append(due)
            why = why or "waiting before the next try"
        return Held(min(until, default=None), why)

    def sent(self, seq: int, model: str, now: float) -> None:
        """Note that a job's submission begins."""
        self.pacer.take(now)
        pacer = self._pacers.get(model)
        if pacer is not None:
            pacer.take(now)
        self._under_way[seq] = now
        self.occupied(model)

    def occupied(self, model: str) -> None:
        """Note a remote task, or one that may come to exist."""
        self.in_flight += 1
        self._in_flight_of[model] += 1

    def released(self, model: str) -> None:
        """Note that a remote task has ended, or never came to exist."""
        self.in_flight -= 1
        self._in_flight_of[model] -= 1

    def withdrawn(self, seq: int, model: str) -> None:
        """Note that a submission ended without an answer of the gateway's."""
        self._under_way.pop(seq, None)
        self.released(model)

    def heard(self, seq: int, model: str, key: str, outcome: SubmitOutcome, now: float) -> Stop | None:
        """Learn from an answer; return why the run must stop submitting, if it must."""
        sent_at = self._under_way.pop(seq, now)
        self.outage.heard(outcome, now)
        match outcome:
            case Accepted() | Rejected():
                for pacer in self._pacers_of(model):
                    pacer.accepted(now, now - sent_at)
            case Throttled(_, retry_after_s):
                self._throttled(model, key, now, sent_at, retry_after_s)
            case NoChannel():
                self.pacer.hold(now)
            case KeyRefused(failure):
                return self._refused(key, failure)
            case WrongAddress(failure):
                return Stop(
                    StopReason.WRONG_ADDRESS,
                    f"the gateway redirects submissions, so its address is wrong: {failure.message}",
                    "correct gateway.base_url in the manifest, or give --base-url",
                )
            case NotSent() | Ambiguous():
                pass
        return self.outage.stop

    def learned(self) -> dict[str, float]:
        """Name the rates that were found to be allowed, for the next run."""
        pacers = {"": self.pacer, **self._pacers}
        return {name: p.learned_per_s for name, p in pacers.items() if p.learned_per_s is not None}

    def _throttled(
        self, model: str, key: str, now: float, sent_at: float, retry_after_s: float | None
    ) -> None:
        self._keyring.throttled(key, now + (retry_after_s or KEY_REST_S))
        if isinstance(self._keyring.pick(now), UseKey):
            # Limits are per account; another account's key may go on at its own pace.
            retry_after_s = None
        self.pacer.throttled(now, sent_at=sent_at, retry_after_s=retry_after_s)
        if model in self._pacers:
            self._pacers[model].throttled(now, sent_at=sent_at, retry_after_s=retry_after_s)

    def _refused(self, key: str, failure: Failure) -> Stop | None:
        self._keyring.refused(key, failure)
        return key_stop(failure) if self._keyring.is_spent else None

    def _pacers_of(self, model: str) -> tuple[Pacer, ...]:
        own = self._pacers.get(model)
        return (self.pacer,) if own is None else (self.pacer, own)

    def _oldest(self) -> float | None:
        # Insertion order is the order of sending.
        return next(iter(self._under_way.values()), None)


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


def _after(models: tuple[str, ...], last: str) -> tuple[str, ...]:
    if last not in models:
        return models
    cut = models.index(last) + 1
    return models[cut:] + models[:cut]
