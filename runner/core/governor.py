"""
The limits that hold for a whole run: its rates, the circuit breaker, how many jobs, and how many may end without a video.

A run of one process asks it directly; the processes of a run with many shards share one (`core.shared_governor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from runner.core.stop import FailureGuard, MaxFailures, Stop, StopReason
from runner.core.turns import Blocked, Chosen, ModelQueue, Queue, choose_model
from runner.core.units import format_count

_NEVER_SENT = Throttled(Failure(FailureClass.INTERRUPTED, "abandoned before it was sent"))
"""What the breaker records for a submission that never left: it says nothing about the gateway."""


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
        submitted: Jobs that were submitted, without those that are to be submitted again.
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
        self.canary = CanaryGate(canary, succeeded=succeeded, in_flight=in_flight)
        self._failure_guard = FailureGuard(max_failures)
        self._limit = limit
        self.submitted = 0

    def left(self, pending: int) -> int:
        """Return how many of the pending jobs may still be submitted."""
        return pending if self._limit is None else min(pending, self._limit - self.submitted)

    def held_back(self) -> str:
        """Return what holds all jobs back whatever the gateway does, in words; empty if nothing does."""
        return self.canary.why if self.canary.is_closed else ""

    def may_submit(self, now: float) -> bool:
        """Return whether the breaker lets one more job through."""
        return self.breaker.may_submit(now)

    def choose(
        self, run: Queue, queues: Sequence[ModelQueue], *, after: str | None, now: float
    ) -> Chosen | Blocked:
        """Choose the model of the next job; see `choose_model`."""
        return choose_model(
            run,
            queues,
            after=after,
            now=now,
            opens_at=self.pacer.opens_at,
            models_open_at={model: pacer.opens_at for model, pacer in self._pacers.items()},
        )

    def why(self, now: float) -> str:
        """Return what limits the rate, in words."""
        return rate_text(self.pacer, now)

    def record_sent(self, model: str, now: float) -> None:
        """Record that a job's submission begins."""
        for pacer in self._pacers_of(model):
            pacer.record_sent(now)
        self.breaker.record_sent(now)
        self.canary.record_submitted()
        self.submitted += 1

    def record_not_submitted(self, *, is_retried: bool) -> None:
        """
        Take back a job that was counted: its submission made no task.

        Args:
            is_retried: Whether it is submitted again; else it ends, or the run does.
        """
        self.submitted -= 1
        if is_retried:
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
            self.canary.record_not_submitted()
            return []
        canary = self.canary.record_end(state, pending=pending)
        failures = self._failure_guard.record_end(state, pending=pending) if is_own else None
        return list(filter(None, (canary, failures)))

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


def rate_text(pacer: Pacer, now: float) -> str:
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


def circuit_text(state: CircuitState) -> str:
    """Return why the breaker lets no job through, in words."""
    match state:
        case CircuitState.OPEN:
            return "gateway outage: waiting until it answers again"
        case CircuitState.HALF_OPEN:
            return "after an outage: one job at a time"
        case _:
            return "waiting for answers to earlier submissions"


class CanaryGate:
    """
    Holds jobs back until enough of the first ones have a video.

    Args:
        policy: None lets all jobs through.
        succeeded: Jobs of the run that have a video already; if they are enough, all jobs go through.
        in_flight: Jobs of earlier processes that have not ended; they count as first ones.

    >>> gate = CanaryGate(CanaryPolicy(jobs=2, succeed=1), succeeded=0, in_flight=0)
    >>> gate.record_submitted(), gate.is_closed, gate.record_submitted(), gate.is_closed
    (None, False, None, True)
    >>> gate.record_end(State.SUCCEEDED, pending=5), gate.is_closed
    (None, False)
    """

    def __init__(self, policy: CanaryPolicy | None, *, succeeded: int, in_flight: int) -> None:
        self._policy = policy if policy is not None and succeeded < policy.succeed else None
        self._submitted = in_flight
        self._ended = 0
        self._succeeded = succeeded

    @property
    def is_closed(self) -> bool:
        """Whether no job may be submitted until others have ended."""
        return self._policy is not None and self._submitted >= self._policy.jobs

    @property
    def why(self) -> str:
        """What holds the next job back, in words."""
        assert self._policy is not None
        return f"canary: {self._succeeded} of the first {self._policy.jobs} have a video, {self._policy.succeed} needed"

    def record_earlier(self, *, succeeded: int, in_flight: int) -> None:
        """Count more jobs of earlier processes."""
        self._submitted += in_flight
        self._succeeded += succeeded
        if self._policy is not None and self._succeeded >= self._policy.succeed:
            self._policy = None

    def count_again(self, *, succeeded: int, in_flight: int) -> None:
        """Forget the jobs that ended without a video, because a process died that may not have reported all."""
        self._submitted = self._ended = self._succeeded = 0
        self.record_earlier(succeeded=succeeded, in_flight=in_flight)

    def record_submitted(self) -> None:
        """Count a job that is submitted."""
        self._submitted += 1

    def record_not_submitted(self) -> None:
        """Take back a job that is submitted again: its submission made no task, or its task failed."""
        self._submitted -= 1

    def record_end(self, state: State, *, pending: int) -> Stop | None:
        """
        Count a job that ended; return why the run must stop, or None.

        Args:
            pending: Jobs that are still to be submitted.
        """
        policy = self._policy
        if policy is None:
            return None
        self._ended += 1
        self._succeeded += state is State.SUCCEEDED
        if self._succeeded >= policy.succeed:
            self._policy = None
            return None
        left = max(0, self._submitted - self._ended) + max(0, policy.jobs - self._submitted)
        if self._succeeded + left >= policy.succeed or not pending:
            return None
        videos = f"{self._succeeded:,} of the first {format_count(policy.jobs, 'job')} have a video"
        return Stop(
            StopReason.CANARY,
            f"{videos}, fewer than canary.succeed {policy.succeed}; the others were not submitted",
            "find out why with runner status, then run the same command again",
        )
