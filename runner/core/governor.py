"""
The limits that hold for a whole run: its rates, the circuit breaker, how many jobs, and how many may end without a video.

A run of one process asks it directly; the processes of a run with many shards share one (`core.shared_governor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import inf

from msgspec import Struct

from runner.core.circuit_breaker import (
    FORBIDDEN_TO_STOP,
    SAME_REFUSALS_TO_STOP,
    CircuitBreaker,
    CircuitState,
    StallTimer,
)
from runner.core.estimate import LEARNED_RATE
from runner.core.lifecycle import State
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
from runner.core.settings import CanaryPolicy, Limits
from runner.core.stop import CanaryGate, FailureGuard, MaxFailures, Stop, StopReason

_NEVER_SENT = Throttled(Failure(FailureClass.INTERRUPTED, "abandoned before it was sent"))
"""What the breaker records for a submission that never left: it says nothing about the gateway."""


class Limit(StrEnum):
    """What prevents the next job from being submitted."""

    HELD = "held"
    IN_FLIGHT = "in_flight"
    RATE = "rate"
    MODEL_IN_FLIGHT = "model_in_flight"
    MODEL_RATE = "model_rate"
    NO_JOBS = "no_jobs"


class ModelQueue(Struct):
    """
    The current state of one model.

    Attributes:
        in_flight: Remote tasks that exist, or may exist.
        max_in_flight: Its limit, or None.
        has_jobs: Whether it has a job that is ready to be submitted.
    """

    model: str
    in_flight: int
    max_in_flight: int | None = None
    has_jobs: bool = True

    @property
    def is_full(self) -> bool:
        """Whether no further task may exist."""
        return self.max_in_flight is not None and self.in_flight >= self.max_in_flight


class Blocked(Struct, frozen=True):
    """
    Nothing can be submitted now.

    Attributes:
        until: When that changes without any event; None if a job has to end or become ready first.
        why: What holds all jobs back, in words.
    """

    by: Limit
    until: float | None = None
    why: str = ""


class RunGovernor:
    """
    The limits of a run. Every ``now`` is a reading of the monotonic clock.

    Args:
        learned: Rates that an earlier run found to be allowed, by model; under "" for the whole run.
        stall_s: How long the gateway may accept nothing before the run stops.
        limit: Jobs to submit at most; None for any number.
        max_failures: Jobs that may end without a video; see `FailureGuard`.
        canary: The jobs to submit before all others, or None.
        succeeded: Jobs that have a video already.
        in_flight: Jobs of earlier processes that have not ended.

    Attributes:
        left: Jobs that may still be submitted, of those that are pending; infinity without a limit.
        canary: Holds jobs back; None if the manifest asks for no canary.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        learned: Mapping[str, float],
        stall_s: float,
        limit: int | None = None,
        max_failures: MaxFailures = None,
        canary: CanaryPolicy | None = None,
        succeeded: int = 0,
        in_flight: int = 0,
    ) -> None:
        self.pacer = Pacer(limits.submit_per_s, learned_per_s=learned.get(""))
        self._pacers = {
            model: Pacer(own.submit_per_s, learned_per_s=learned.get(model))
            for model, own in limits.models.items()
            if own.submit_per_s is not None
        }
        self.breaker = CircuitBreaker()
        self.stall_timer = StallTimer(stall_s)
        self.canary = None if canary is None else CanaryGate(canary, succeeded=succeeded, in_flight=in_flight)
        self._failure_guard = FailureGuard(max_failures)
        self.left: float = inf if limit is None else limit

    def choose(
        self, queues: Sequence[ModelQueue], *, free: int, after: str | None, now: float
    ) -> str | Blocked:
        """
        Return the model of the next job, unless all are held back; see `choose_model`.

        Args:
            free: Further tasks that may exist in the run; the queues are of no importance if there are none.
        """
        if self.canary is not None and self.canary.is_closed:
            return Blocked(Limit.HELD, why=self.canary.why)
        if not self.breaker.may_submit(now):
            return Blocked(Limit.HELD, why=self.breaker.why)
        if free <= 0:
            return Blocked(Limit.IN_FLIGHT)
        return choose_model(
            queues,
            after=after,
            now=now,
            opens_at=self.pacer.opens_at,
            models_open_at={model: pacer.opens_at for model, pacer in self._pacers.items()},
        )

    def why(self, now: float) -> str:
        """Return what limits the rate, in words."""
        return _rate_text(self.pacer, now)

    def record_sent(self, model: str, now: float) -> None:
        """Record that a job's submission begins."""
        for pacer in self._pacers_of(model):
            pacer.record_sent(now)
        self.breaker.record_sent(now)
        if self.canary is not None:
            self.canary.record_submitted()
        self.left -= 1

    def record_not_submitted(self, *, is_retried: bool) -> None:
        """
        Take back a job that was counted: its submission made no task.

        Args:
            is_retried: Whether it is submitted again; else it ends, or the run does.
        """
        self.left += 1
        if is_retried and self.canary is not None:
            self.canary.record_not_submitted()

    def record_abandoned(self, model: str, failure: Failure | None, now: float) -> None:
        """
        Record that a submission was abandoned before an answer arrived.

        Args:
            failure: Why the job is uncertain now; None if nothing was sent.
        """
        self.breaker.record_answer(_NEVER_SENT if failure is None else Ambiguous(failure), now)

    def record_outcome(
        self, model: str, outcome: SubmitOutcome, now: float, *, sent_at: float
    ) -> Stop | None:
        """Record an answer; return why the run must stop submitting, or None."""
        before = self.breaker.state
        self.breaker.record_answer(outcome, now)
        if isinstance(outcome, Accepted | Rejected):
            self.stall_timer.record_progress()
            for pacer in self._pacers_of(model):
                pacer.record_accepted(now, now - sent_at)
            return self._stop_for_refusals() if isinstance(outcome, Rejected) else None
        wait_s = outcome.retry_after_s if isinstance(outcome, Throttled) else None
        self.stall_timer.record_refusal(outcome.failure.message, now, wait_s=wait_s)
        match outcome:
            case Throttled(_, retry_after_s):
                for pacer in self._pacers_of(model):
                    pacer.record_throttled(now, sent_at=sent_at, retry_after_s=retry_after_s)
            case NoChannel() | NotSent():
                self.pacer.freeze_growth(now)
            case KeyRefused():
                return None
            case BadBaseUrl(failure):
                return Stop(
                    StopReason.BAD_BASE_URL,
                    f"the gateway redirects submissions, so its address is wrong: {failure.message}",
                    "correct gateway.base_url in the manifest, or use --base-url",
                )
            case Ambiguous():
                # One job a minute is not too fast: a trial that fails says that the outage lasts.
                for pacer in self._pacers_of(model) if before is CircuitState.CLOSED else ():
                    pacer.record_uncertain(now, sent_at=sent_at)
        if before is CircuitState.CLOSED and self.breaker.state is CircuitState.OPEN:
            for pacer in (self.pacer, *self._pacers.values()):
                pacer.record_outage()
        return None

    def record_probe(self, now: float, *, is_healthy: bool) -> None:
        """Record whether the gateway answered a free request; in an outage nothing else may be sent, and refused."""
        self.breaker.record_probe(now, is_healthy=is_healthy)
        if not is_healthy:
            self.stall_timer.record_refusal(self.stall_timer.last_message, now)

    def _stop_for_refusals(self) -> Stop | None:
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
        return None

    def record_end(self, state: State, *, pending: int, is_own: bool) -> list[Stop]:
        """
        Count a job that ended, or is pending again for another take; return why the run must stop submitting.

        Args:
            pending: Jobs that are still to be submitted.
            is_own: Whether it ended like this because of what this run submitted; else it had done so before.
        """
        if state is State.PENDING:
            if self.canary is not None:
                self.canary.record_not_submitted()
            return []
        stops = [] if self.canary is None else [self.canary.record_end(state, pending=pending)]
        if is_own:
            stops.append(self._failure_guard.record_end(state, pending=pending))
        return [stop for stop in stops if stop is not None]

    def record_stop(self, stop: Stop) -> None:
        """Record why the run stops; it is the only process that works on it."""

    def learned(self) -> dict[str, float]:
        """Return the rates that were found to be allowed, for the next run."""
        pacers = {"": self.pacer, **self._pacers}
        return {name: p.learned_per_s for name, p in pacers.items() if p.learned_per_s is not None}

    def slow_down(self, learned: Mapping[str, float]) -> None:
        """Begin again at rates that others found to be allowed, where they are lower; a pacer that is not used yet."""
        for name, per_s in learned.items():
            old = self._pacers.get(name) if name else self.pacer
            if old is None or per_s >= old.per_s:
                continue
            pacer = Pacer(old.configured_per_s, learned_per_s=per_s)
            pacer.pause(old.opens_at)
            if name:
                self._pacers[name] = pacer
            else:
                self.pacer = pacer

    def _pacers_of(self, model: str) -> tuple[Pacer, ...]:
        own = self._pacers.get(model)
        return (self.pacer,) if own is None else (self.pacer, own)


def _rate_text(pacer: Pacer, now: float) -> str:
    """Return what limits a rate, in words."""
    match pacer.limited_by(now):
        case RateSource.PAUSED:
            return "wait requested by the gateway"
        case RateSource.LEARNED:
            return LEARNED_RATE
        case RateSource.CAUTIOUS:
            return "lower rate after uncertain answers or an outage"
        case _:
            return "submit rate"


def choose_model(
    queues: Sequence[ModelQueue],
    *,
    after: str | None,
    now: float,
    opens_at: float,
    models_open_at: Mapping[str, float] = {},
) -> str | Blocked:
    """
    Return the next model that has a job, a free slot and an open pacer.

    Args:
        queues: Every model, always in the same order.
        after: The model that was chosen last, or None.
        opens_at: When the run's pacer allows the next request.
        models_open_at: The same for each model with a pacer of its own.

    >>> queues = [ModelQueue("slow", 2, 2), ModelQueue("fast", 0)]
    >>> choose_model(queues, after="fast", now=0.0, opens_at=0.0)
    'fast'
    >>> choose_model(queues, after="fast", now=0.0, opens_at=0.5)
    Blocked(by=<Limit.RATE: 'rate'>, until=0.5, why='')
    """
    with_jobs = [queue for queue in _rotated(queues, after) if queue.has_jobs]
    if not with_jobs:
        return Blocked(Limit.NO_JOBS)
    not_full = [queue for queue in with_jobs if not queue.is_full]
    if not not_full:
        return Blocked(Limit.MODEL_IN_FLIGHT)
    if opens_at > now:
        return Blocked(Limit.RATE, opens_at)
    for queue in not_full:
        if models_open_at.get(queue.model, now) <= now:
            return queue.model
    return Blocked(Limit.MODEL_RATE, min(models_open_at[queue.model] for queue in not_full))


def _rotated(queues: Sequence[ModelQueue], after: str | None) -> Sequence[ModelQueue]:
    if len(queues) == 1:
        return queues
    models = [queue.model for queue in queues]
    first = models.index(after) + 1 if after in models else 0
    return [*queues[first:], *queues[:first]]
