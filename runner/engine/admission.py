"""
Whether a job may be submitted now, of which model and with which key; and what each answer changes.

All limits on submissions are applied here: the rate of the run and of each model, the tasks that
exist at once, the state of the keys, and the circuit breaker that keeps an outage from making a
whole batch uncertain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from runner.core.circuit_breaker import (
    FORBIDDEN_TO_STOP,
    SAME_REFUSALS_TO_STOP,
    CircuitBreaker,
    CircuitState,
    StallTimer,
)
from runner.core.key_pool import KeyPool, UseKey, WaitForKey
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import (
    Accepted,
    Ambiguous,
    BadBaseUrl,
    KeyRefused,
    NoChannel,
    NotSent,
    Rejected,
    SubmitOutcome,
    Throttled,
)
from runner.core.pacing import Pacer, RateSource
from runner.core.round_robin import Blocked, Limit, ModelQueue, Queue, choose_model
from runner.core.settings import Limits
from runner.core.stop import Stop, StopReason, stop_for_unreachable_gateway
from runner.engine.pending_jobs import PendingJobs

KEY_COOLDOWN_S = 5.0
"""How long a throttled key is not used while others of the pool are, if the server names no time."""

RECHECK_BREAKER_S = 1.0

UNREACHED_TO_STOP = 3
"""Requests that reach nothing, before any that does, until the run stops: the address or the network must be wrong."""

_NEVER_SENT = Throttled(Failure(FailureClass.INTERRUPTED, "abandoned before it was sent"))
"""What the breaker records for a submission that never left: it says nothing about the gateway."""


class Admitted(Struct, frozen=True):
    """Submit a job of this model with this key now."""

    model: str
    key: str


class NotAdmitted(Struct, frozen=True):
    """
    Nothing may be submitted now.

    Attributes:
        until: When to look again; None if only an event can change it.
        why: The limit that holds the submission back, in words.
    """

    until: float | None
    why: str


class Admission:
    """
    The limits on submissions, for one run. ``now`` is a reading of the monotonic clock.

    Args:
        learned: Rates that an earlier run found to be allowed, by model; under "" for the whole run.
        stall_s: How long the gateway may accept nothing before the run stops.

    Attributes:
        has_contact: Whether any request of this process has reached the gateway.
    """

    def __init__(
        self, limits: Limits, key_pool: KeyPool, *, learned: Mapping[str, float], stall_s: float
    ) -> None:
        self._limits = limits
        self._key_pool = key_pool
        self.pacer = Pacer(limits.submit_per_s, learned_per_s=learned.get(""))
        self._pacers = {
            model: Pacer(own.submit_per_s, learned_per_s=learned.get(model))
            for model, own in limits.models.items()
            if own.submit_per_s is not None
        }
        self.breaker = CircuitBreaker()
        self.stall_timer = StallTimer(stall_s)
        self._slots: dict[int, str] = {}
        self._in_flight_by_model: Counter[str] = Counter()
        self._sent_at: dict[int, float] = {}
        self._last_model: str | None = None
        self._unreached = 0
        self.has_contact = False

    @property
    def in_flight(self) -> int:
        """Remote tasks that exist, or may come to exist."""
        return len(self._slots)

    def admit(self, pending: PendingJobs, now: float) -> Admitted | NotAdmitted:
        """Choose the next model in turn and the key to use, or return which limit holds everything back."""
        if self.in_flight >= self._limits.in_flight:
            return NotAdmitted(None, f"in_flight {self._limits.in_flight}")
        if not self.breaker.may_submit(now):
            # An answer, a probe or the passing of time closes it; only the last must be checked for.
            return NotAdmitted(now + RECHECK_BREAKER_S, _circuit_text(self.breaker))
        run = Queue(self.in_flight, self._limits.in_flight, self.pacer.opens_at)
        choice = choose_model(run, self._queues(pending, now), after=self._last_model, now=now)
        if isinstance(choice, Blocked):
            return self._blocked(choice, pending, now)
        key = self._key_pool.pick(now)
        if isinstance(key, UseKey):
            self._last_model = choice.model
            return Admitted(choice.model, key.fingerprint)
        return NotAdmitted(key.until if isinstance(key, WaitForKey) else None, "every key is cooling down")

    def _queues(self, pending: PendingJobs, now: float) -> list[ModelQueue]:
        queues = []
        for model in pending.models:
            own = self._limits.models.get(model)
            pacer = self._pacers.get(model)
            queues.append(
                ModelQueue(
                    self._in_flight_by_model[model],
                    None if own is None else own.in_flight,
                    None if pacer is None else pacer.opens_at,
                    model,
                    pending.has_ready(model, now),
                )
            )
        return queues

    def _blocked(self, blocked: Blocked, pending: PendingJobs, now: float) -> NotAdmitted:
        match blocked.by:
            case Limit.RATE:
                return NotAdmitted(blocked.until, _rate_text(self.pacer, now))
            case Limit.MODEL_RATE:
                return NotAdmitted(blocked.until, "submit rate of every model")
            case Limit.MODEL_IN_FLIGHT:
                return NotAdmitted(pending.next_due(now), "in_flight of every model")
            case _:
                return NotAdmitted(pending.next_due(now), "waiting before retries")

    def record_sent(self, seq: int, model: str, now: float) -> None:
        """Record that a job's submission begins."""
        self.pacer.record_sent(now)
        pacer = self._pacers.get(model)
        if pacer is not None:
            pacer.record_sent(now)
        self._sent_at[seq] = now
        self.breaker.record_sent(now)
        self.reserve_slot(seq, model)

    def in_flight_by_model(self) -> dict[str, int]:
        """Count the remote tasks that exist, or may come to exist, by model."""
        return {model: count for model, count in self._in_flight_by_model.items() if count}

    def reserve_slot(self, seq: int, model: str) -> None:
        """Count a remote task, or one that may come to exist."""
        self._slots[seq] = model
        self._in_flight_by_model[model] += 1

    def release_slot(self, seq: int) -> None:
        """Record that a job's remote task has ended, or never existed; a second call changes nothing."""
        model = self._slots.pop(seq, None)
        if model is not None:
            self._in_flight_by_model[model] -= 1

    def record_abandoned(self, seq: int, failure: Failure | None, now: float) -> None:
        """
        Record that a submission was abandoned before an answer arrived.

        Args:
            failure: Why the job is uncertain now; None if nothing was sent.
        """
        if self._sent_at.pop(seq, None) is not None:
            self.breaker.record_answer(_NEVER_SENT if failure is None else Ambiguous(failure), now)
        self.release_slot(seq)

    def record_outcome(
        self, seq: int, model: str, key: str, outcome: SubmitOutcome, now: float
    ) -> Stop | None:
        """Record an answer; return why the run must stop submitting, or None."""
        sent_at = self._sent_at.pop(seq, now)
        before = self.breaker.state
        self.breaker.record_answer(outcome, now)
        unreachable = self.record_contact(outcome.failure if isinstance(outcome, NotSent) else None)
        if not isinstance(outcome, Accepted | Rejected):
            self.stall_timer.record_refusal(outcome.failure.message, now)
        match outcome:
            case Accepted() | Rejected():
                self.stall_timer.record_progress()
                for pacer in self._pacers_of(model):
                    pacer.record_accepted(now, now - sent_at)
            case Throttled(_, retry_after_s):
                self._throttled(model, key, now, sent_at, retry_after_s)
            case NoChannel():
                self.pacer.freeze_growth(now)
            case KeyRefused(failure):
                self._key_pool.retire(key, failure)
                return stop_for_refused_key(failure) if self._key_pool.is_exhausted else None
            case BadBaseUrl(failure):
                return Stop(
                    StopReason.BAD_BASE_URL,
                    f"the gateway redirects submissions, so its address is wrong: {failure.message}",
                    "correct gateway.base_url in the manifest, or use --base-url",
                )
            case NotSent():
                self.pacer.freeze_growth(now)
            case Ambiguous():
                # One job a minute is not too fast: a trial that fails says that the outage lasts.
                for pacer in self._pacers_of(model) if before is CircuitState.CLOSED else ():
                    pacer.record_doubtful(now, sent_at=sent_at)
        if before is CircuitState.CLOSED and self.breaker.state is CircuitState.OPEN:
            for pacer in (self.pacer, *self._pacers.values()):
                pacer.record_outage()
        if self.breaker.is_forbidden:
            return Stop(
                StopReason.FORBIDDEN,
                f"{FORBIDDEN_TO_STOP} jobs in a row were refused with 403",
                "check that the key may use these models, then run again with --retry-failed",
            )
        if (refusal := self.breaker.repeated_refusal) is not None:
            return Stop(
                StopReason.REFUSED,
                f"{SAME_REFUSALS_TO_STOP} jobs in a row were refused with the same words: {refusal}",
                "check the key with runner doctor, and the request; then submit the refused jobs again with "
                "runner rerun --class invalid_request",
            )
        return unreachable

    def record_contact(self, failure: Failure | None) -> Stop | None:
        """
        Record whether a request reached the gateway; return why the run must stop, or None.

        Args:
            failure: Why it did not, or None.
        """
        if failure is None:
            self.has_contact = True
        elif not self.has_contact:
            self._unreached += 1
            if self._unreached >= UNREACHED_TO_STOP:
                return stop_for_unreachable_gateway(failure.message)
        return None

    def learned(self) -> dict[str, float]:
        """Return the rates that were found to be allowed, for the next run."""
        pacers = {"": self.pacer, **self._pacers}
        return {name: p.learned_per_s for name, p in pacers.items() if p.learned_per_s is not None}

    def _throttled(
        self, model: str, key: str, now: float, sent_at: float, retry_after_s: float | None
    ) -> None:
        if self._key_pool.is_pool:
            # Limits are per account: another key may belong to another account, and be used meanwhile.
            self._key_pool.cool_down(key, now + (retry_after_s or KEY_COOLDOWN_S))
            retry_after_s = None
        for pacer in self._pacers_of(model):
            pacer.record_throttled(now, sent_at=sent_at, retry_after_s=retry_after_s)

    def _pacers_of(self, model: str) -> tuple[Pacer, ...]:
        own = self._pacers.get(model)
        return (self.pacer,) if own is None else (self.pacer, own)


def stop_for_refused_key(failure: Failure) -> Stop:
    """Return why a run stops that has no usable key left."""
    if failure.cls is FailureClass.QUOTA:
        return Stop(
            StopReason.QUOTA,
            f"the account is out of credit: {failure.message}",
            "add credit, then resume the run",
        )
    return Stop(
        StopReason.AUTH, f"the key was refused: {failure.message}", "set a valid key, then resume the run"
    )


def _rate_text(pacer: Pacer, now: float) -> str:
    match pacer.limited_by(now):
        case RateSource.PAUSED:
            return "wait requested by the gateway"
        case RateSource.LEARNED:
            return "rate learned from 429s"
        case RateSource.CAUTIOUS:
            return "lower rate after uncertain answers or an outage"
        case _:
            return "submit rate"


def _circuit_text(breaker: CircuitBreaker) -> str:
    match breaker.state:
        case CircuitState.OPEN:
            return "gateway outage: waiting until it answers again"
        case CircuitState.HALF_OPEN:
            return "after an outage: one job at a time"
        case _:
            return "waiting for answers to earlier submissions"
