"""
What the engine asks of the limits of the whole run, however many processes work on it.

`core.governor.RunGovernor` is the one of a single process; `engine.leased_governor` asks another process for its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runner.core.circuit_breaker import CircuitState
from runner.core.lifecycle import State
from runner.core.model import Failure
from runner.core.outcomes import SubmitOutcome
from runner.core.round_robin import Blocked, Chosen, ModelQueue, Queue
from runner.core.stop import Stop


class Pace(Protocol):
    """The rate of submissions, as `core.pacing.Pacer` has it."""

    @property
    def per_s(self) -> float:
        """The rate that is allowed now."""

    @property
    def opens_at(self) -> float:
        """When the next request may be sent."""

    def accepted_per_s(self, now: float) -> float:
        """Return the rate of answers other than refusals, over about the last minute."""


class Circuit(Protocol):
    """The state of the gateway, as `core.circuit_breaker.CircuitBreaker` has it."""

    state: CircuitState
    unanswered: int

    @property
    def probe_at(self) -> float | None:
        """When to send a free request, or None."""


class Stall(Protocol):
    """Detects that nothing is accepted any more, as `core.circuit_breaker.StallTimer` does."""

    limit_s: float
    last_message: str

    @property
    def expires_at(self) -> float:
        """When it is time to stop if nothing changes; infinity if it will not be."""

    def record_progress(self) -> None:
        """Record that the gateway did something for the run."""


class Governor(Protocol):
    """The limits of a run. See `core.governor.RunGovernor` for what each method does."""

    @property
    def pacer(self) -> Pace:
        """The rate of submissions."""

    @property
    def breaker(self) -> Circuit:
        """The state of the gateway."""

    @property
    def stall_timer(self) -> Stall:
        """How long nothing was accepted."""

    def left(self, pending: int) -> int:
        """Return how many of the pending jobs may still be submitted."""

    def held_back(self) -> str:
        """Return what holds all jobs back whatever the gateway does, in words; empty if nothing does."""

    def may_submit(self, now: float) -> bool:
        """Return whether the breaker lets one more job through."""

    def choose(
        self, run: Queue, queues: Sequence[ModelQueue], *, after: str | None, now: float
    ) -> Chosen | Blocked:
        """Choose the model of the next job."""

    def why(self, now: float) -> str:
        """Return what limits the rate, in words."""

    def record_sent(self, model: str, now: float) -> None:
        """Record that a job's submission begins."""

    def record_not_submitted(self, *, is_retried: bool) -> None:
        """Take back a job that was counted: its submission made no task."""

    def record_abandoned(self, model: str, failure: Failure | None, now: float) -> None:
        """Record that a submission was abandoned before an answer arrived."""

    def record_outcome(
        self, model: str, outcome: SubmitOutcome, now: float, *, sent_at: float
    ) -> Stop | None:
        """Record an answer; return why the run must stop submitting, or None."""

    def record_probe(self, now: float, *, is_healthy: bool) -> None:
        """Record whether the gateway answered a free request."""

    def record_end(self, state: State, *, pending: int, is_own: bool) -> list[Stop]:
        """Count a job that ended; return why the run must stop submitting."""

    def record_stop(self, stop: Stop) -> None:
        """Record why this process submits nothing more."""

    def learned(self) -> dict[str, float]:
        """Return the rates that were found to be allowed, for the next run."""
