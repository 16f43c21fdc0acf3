"""
Keep an outage from putting a whole batch in doubt.

Each POST without a clear answer may be a paid task that nobody may submit again. So
doubt stops the submissions: after three doubtful answers without an accepted one a free
request is tried with growing pauses until the gateway answers again, then one job
at a time until one is accepted. The gateway may be well and its upstream not: then
every trial job is another doubt, and the pause before the next trial grows to minutes.

Polling and downloading go on all the while.
"""

from __future__ import annotations

from enum import StrEnum

from runner.core.model import FailureClass
from runner.core.outcomes import Accepted, Ambiguous, NotSent, Rejected, SubmitOutcome
from runner.core.retry import backoff_s

DOUBTS_TO_OPEN = 3
FORBIDDEN_TO_STOP = 5

_QUIET_S = 5.0
"""Without any answer for so long, `_MOST_UNANSWERED` POSTs may be under way: each may end in doubt."""
_MOST_UNANSWERED = 5
_MOST_TRIAL_PAUSES = 10


class CircuitState(StrEnum):
    """Whether jobs are submitted."""

    CLOSED = "closed"
    """As ever. The word is that of a circuit: closed is well."""
    OPEN = "open"
    """None; a probe from time to time."""
    HALF_OPEN = "half_open"
    """One at a time, until one is accepted."""


class CircuitBreaker:
    """
    Tell whether a job may be submitted now. Every method takes ``now``, a reading of the monotonic clock.

    Between two accepted answers at most `DOUBTS_TO_OPEN` POSTs are put in doubt, and those
    already under way at the first doubt; then one for each trial.

    Args:
        first_pause_s: Before the first probe; each further pause is twice the one before.
        longest_pause_s: Between two probes, and from a doubtful trial to the next one at first;
            this one doubles too, up to ten times as much.
    """

    def __init__(self, *, first_pause_s: float = 5.0, longest_pause_s: float = 60.0) -> None:
        self.state = CircuitState.CLOSED
        self.under_way = 0
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._doubts = 0
        self._not_sent = 0
        self._forbidden = 0
        self._quiet_since = 0.0
        self._failed_probes = 0
        self._failed_trials = 0
        self._probe_at = 0.0
        self._trial_at = 0.0

    @property
    def is_forbidden(self) -> bool:
        """So many jobs in a row were refused with 403 that the key must be the reason: stop the run."""
        return self._forbidden >= FORBIDDEN_TO_STOP

    @property
    def probe_at(self) -> float | None:
        """When to try a free request next, and to call `record_probe`; None while none is needed."""
        return self._probe_at if self.state is CircuitState.OPEN else None

    def may_submit(self, now: float) -> bool:
        """Say whether one more POST may leave now."""
        if self.is_forbidden or self.state is CircuitState.OPEN:
            return False
        if self.state is CircuitState.HALF_OPEN or self._doubts > 0 or self._not_sent > 0:
            return self.under_way == 0
        return self.under_way < _MOST_UNANSWERED or now - self._quiet_since < _QUIET_S

    def record_sent(self, now: float) -> None:
        """Note that a POST leaves now."""
        if self.under_way == 0:
            self._quiet_since = now
        self.under_way += 1

    def record_answer(self, outcome: SubmitOutcome, now: float) -> None:
        """Note what came of a POST: exactly once for each `record_sent`, an interrupted one being ambiguous."""
        self.under_way -= 1
        self._quiet_since = now
        self._count_forbidden(outcome)
        match outcome:
            case Accepted():
                self._accepted()
            case Ambiguous():
                self._doubted(now)
            case NotSent():
                self._missed(now)
            case _:
                # It says that the gateway is there, and nothing of whether it accepts jobs again.
                self._not_sent = 0

    def record_probe(self, now: float, *, is_well: bool) -> None:
        """Note whether the free request was answered by the gateway itself."""
        if self.state is not CircuitState.OPEN:
            return
        if not is_well:
            self._failed_probes += 1
            self._probe_at = now + self._probe_pause_s()
        elif now < self._trial_at:
            self._probe_at = self._trial_at
        else:
            self.state = CircuitState.HALF_OPEN

    def _count_forbidden(self, outcome: SubmitOutcome) -> None:
        if isinstance(outcome, Rejected):
            is_forbidden = outcome.failure.cls is FailureClass.FORBIDDEN
            self._forbidden = self._forbidden + 1 if is_forbidden else 0
        elif isinstance(outcome, Accepted):
            self._forbidden = 0

    def _accepted(self) -> None:
        self._doubts = self._not_sent = 0
        self._failed_probes = self._failed_trials = 0
        # One that was under way when the trouble began says less than a trial would.
        self.state = CircuitState.HALF_OPEN if self.state is CircuitState.OPEN else CircuitState.CLOSED

    def _doubted(self, now: float) -> None:
        self._doubts += 1
        if self.state is CircuitState.HALF_OPEN:
            self._failed_trials += 1
            first_s = self._longest_pause_s
            pause_s = backoff_s(first_s, _MOST_TRIAL_PAUSES * first_s, self._failed_trials)
            self._open(now, trial_at=now + pause_s)
        elif self.state is CircuitState.CLOSED and self._doubts >= DOUBTS_TO_OPEN:
            self._open(now, trial_at=now)

    def _missed(self, now: float) -> None:
        self._not_sent += 1
        if self.state is CircuitState.HALF_OPEN or (
            self.state is CircuitState.CLOSED and self._not_sent >= DOUBTS_TO_OPEN
        ):
            self._open(now, trial_at=now)

    def _open(self, now: float, *, trial_at: float) -> None:
        self.state = CircuitState.OPEN
        self._trial_at = trial_at
        self._failed_probes += 1
        self._probe_at = now + self._probe_pause_s()

    def _probe_pause_s(self) -> float:
        return backoff_s(self._first_pause_s, self._longest_pause_s, self._failed_probes)


LEAST_REFUSALS = 3
"""Answers in a row that say anything about the gateway: at a job an hour, one says little."""


class StallTimer:
    """
    Tell when nothing has moved for too long. Every method takes ``now``, a reading of the monotonic clock.

    Only answers count: a run that asks for nothing, because its own limits hold it
    back, does not stand still.

    >>> standstill = StallTimer(limit_s=3600.0)
    >>> for now in (0.0, 10.0, 20.0):
    ...     standstill.record_refusal("429", now)
    >>> standstill.has_expired(3599.0), standstill.has_expired(3600.0)
    (False, True)
    >>> standstill.record_progress()
    >>> standstill.has_expired(3600.0)
    False
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.last_words = ""
        self._since: float | None = None
        self._refusals = 0

    def record_progress(self) -> None:
        """Note that the gateway did something for the run: it took or rejected a job, or showed a task."""
        self._since = None
        self._refusals = 0

    def record_refusal(self, message: str, now: float) -> None:
        """Note that a submission came to nothing for now, and what was said."""
        self.last_words = message
        self._refusals += 1
        if self._since is None:
            self._since = now

    def has_expired(self, now: float) -> bool:
        """Say whether it is time to stop."""
        if self._since is None or self._refusals < LEAST_REFUSALS:
            return False
        return now - self._since >= self.limit_s
