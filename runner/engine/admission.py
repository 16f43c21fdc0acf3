"""
Whether a job may be submitted now, of which model and with which key; and what each answer changes.

The limits of this process are applied here: the tasks that exist at once, and the state of the keys. Those of the
whole run are its governor's, however many processes work on it: the rates, and the circuit breaker that keeps an outage
from making a whole batch uncertain. `core.governor.RunGovernor` is the one of a single process;
`engine.governor_client` asks another process for its share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from runner.core.governor import Blocked, Limit, ModelQueue
from runner.core.key_pool import KeyPool
from runner.core.model import Failure, FailureClass
from runner.core.outcomes import KeyRefused, NotSent, SubmitOutcome, Throttled
from runner.core.settings import Limits
from runner.core.stop import Stop, StopReason, stop_for_unreachable_gateway
from runner.store.work_list import PendingJobs

if TYPE_CHECKING:
    from runner.core.governor import RunGovernor
    from runner.engine.governor_client import GovernorClient

    Governor: TypeAlias = RunGovernor | GovernorClient
    """The limits of a whole run."""


KEY_COOLDOWN_S = 5.0
"""How long a throttled key is not used while others of the pool are, if the server names no time."""

RECHECK_S = 1.0

UNREACHED_TO_STOP = 3
"""Requests that reach nothing, before any that does, until the run stops: the address or the network must be wrong."""


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

    Attributes:
        has_contact: Whether any request of this process has reached the gateway.
    """

    def __init__(self, limits: Limits, key_pool: KeyPool, governor: Governor) -> None:
        self._limits = limits
        self._key_pool = key_pool
        self._governor = governor
        self._slots: dict[int, ModelQueue] = {}
        self._queues: dict[str, ModelQueue] = {}
        self._sent_at: dict[int, float] = {}
        self._last_model: str | None = None
        self._unreached = 0
        self.has_contact = False

    @property
    def in_flight(self) -> int:
        """Remote tasks that exist, or may still be created."""
        return len(self._slots)

    def admit(self, pending: PendingJobs, now: float) -> Admitted | NotAdmitted:
        """Choose the next model in turn and the key to use, or return which limit holds everything back."""
        free, queues = self._limits.in_flight - len(self._slots), []
        for model, is_ready in pending.readiness(now) if free > 0 else ():
            queue = self._queue(model)
            queue.has_jobs = is_ready
            queues.append(queue)
        choice = self._governor.choose(queues, free=free, after=self._last_model, now=now)
        if isinstance(choice, Blocked):
            return self._blocked(choice, pending, now)
        key = self._key_pool.pick(now)
        if key is None:
            return NotAdmitted(self._key_pool.first_ready_at, "every key is cooling down")
        self._last_model = choice
        return Admitted(choice, key)

    def _queue(self, model: str) -> ModelQueue:
        queue = self._queues.get(model)
        if queue is None:
            own = self._limits.models.get(model)
            queue = self._queues[model] = ModelQueue(model, 0, None if own is None else own.in_flight)
        return queue

    def _blocked(self, blocked: Blocked, pending: PendingJobs, now: float) -> NotAdmitted:
        match blocked.by:
            case Limit.HELD:
                # An answer, a probe or the passing of time changes it; only the last must be checked for.
                return NotAdmitted(now + RECHECK_S, blocked.why)
            case Limit.IN_FLIGHT:
                return NotAdmitted(None, f"in_flight {self._limits.in_flight}")
            case Limit.RATE:
                return NotAdmitted(blocked.until, self._governor.why(now))
            case Limit.MODEL_RATE:
                return NotAdmitted(blocked.until, "submit rate of every model")
            case Limit.MODEL_IN_FLIGHT:
                return NotAdmitted(pending.next_due(now), "in_flight of every model")
            case _:
                return NotAdmitted(pending.next_due(now), "waiting before retries")

    def record_sent(self, seq: int, model: str, now: float) -> None:
        """Record that a job's submission begins."""
        self._governor.record_sent(model, now)
        self._sent_at[seq] = now
        self.reserve_slot(seq, model)

    def in_flight_by_model(self) -> dict[str, int]:
        """Count the remote tasks that exist, or may still be created, by model."""
        return {model: queue.in_flight for model, queue in self._queues.items() if queue.in_flight}

    def reserve_slot(self, seq: int, model: str) -> None:
        """Count a remote task, or one that may still be created."""
        queue = self._slots[seq] = self._queue(model)
        queue.in_flight += 1

    def release_slot(self, seq: int) -> None:
        """Record that a job's remote task has ended, or never existed; a second call changes nothing."""
        queue = self._slots.pop(seq, None)
        if queue is not None:
            queue.in_flight -= 1

    def record_abandoned(self, seq: int, failure: Failure | None, now: float) -> None:
        """
        Record that a submission was abandoned before an answer arrived.

        Args:
            failure: Why the job is uncertain now; None if nothing was sent.
        """
        if self._sent_at.pop(seq, None) is not None:
            self._governor.record_abandoned(self._slots[seq].model, failure, now)
        self.release_slot(seq)

    def record_outcome(
        self, seq: int, model: str, key: str, outcome: SubmitOutcome, now: float
    ) -> Stop | None:
        """Record an answer; return why the run must stop submitting, or None."""
        sent_at = self._sent_at.pop(seq, now)
        unreachable = self.record_contact(outcome.failure if isinstance(outcome, NotSent) else None)
        if isinstance(outcome, Throttled) and self._key_pool.is_pool:
            # Limits are per account: another key may belong to another account, and be used meanwhile.
            self._key_pool.cool_down(key, now + (outcome.retry_after_s or KEY_COOLDOWN_S))
            outcome = replace(outcome, retry_after_s=None)
        stop = self._governor.record_outcome(model, outcome, now, sent_at=sent_at)
        if isinstance(outcome, KeyRefused):
            self._key_pool.retire(key, outcome.failure)
            is_last = self._key_pool.first_ready_at is None
            return stop_for_refused_key(outcome.failure) if is_last else None
        return stop or unreachable

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


def stop_for_refused_key(failure: Failure) -> Stop:
    """Return the stop of a run that has no usable key left."""
    if failure.cls is FailureClass.QUOTA:
        return Stop(
            StopReason.QUOTA,
            f"the account is out of credit: {failure.message}",
            "add credit, then resume the run",
        )
    return Stop(
        StopReason.AUTH, f"the key was refused: {failure.message}", "set a valid key, then resume the run"
    )
