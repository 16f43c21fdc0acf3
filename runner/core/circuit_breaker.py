"""
Keep an outage from making a whole batch uncertain.

A POST without a clear answer may be a paid task, and may not be sent again. So such answers stop the
submissions: after three of them without an accepted one, or five among the last twenty, a free request is sent with growing pauses
until the gateway answers again, then one job at a time until one is accepted. The gateway may be healthy
while its upstream is not: then every trial job becomes uncertain too, and the pause before the next trial
grows to minutes. Polls and downloads continue all the while.
"""

from __future__ import annotations

import re
from collections import deque
from enum import StrEnum
from functools import partial
from math import inf

from msgspec import Struct, field

from runner.core.model import Failure, FailureClass
from runner.core.outcomes import Accepted, Ambiguous, NotSent, Rejected, SubmitOutcome
from runner.core.retry import backoff_s

UNCERTAIN_TO_OPEN = 3
"""Uncertain answers without an accepted one between them."""
WINDOW = 20
UNCERTAIN_IN_WINDOW = 5
"""Uncertain answers among the last `WINDOW` that were accepted or uncertain."""
FORBIDDEN_TO_STOP = 5
SAME_REFUSALS_TO_STOP = 5
"""Jobs in a row that are refused with the same text: more than their requests must be wrong."""
_OWN_ID = re.compile(r"\b(?=\w*\d)[\w-]{12,}\b")
"""What differs between the texts of two answers because it names the answer, such as an id or a time."""
MIN_REFUSALS = 3
"""Refusals in a row before a stall is possible: at a job an hour, one means little."""

_SILENCE_S = 5.0
"""After this time without any answer, at most `_MAX_UNANSWERED` POSTs may be waiting for theirs: each may become uncertain."""
_MAX_UNANSWERED = 5

_FIRST_PROBE_S = 5.0
"""Before the first probe; each further pause is twice the one before."""
_MAX_PROBE_S = 60.0
"""Between two probes. An uncertain trial is followed by such a pause too; that one doubles up to `_MAX_TRIAL_S`."""
_MAX_TRIAL_S = 600.0


class CircuitState(StrEnum):
    """Whether jobs are submitted."""

    CLOSED = "closed"
    """Yes. As in an electric circuit, closed is the normal state."""
    OPEN = "open"
    """No; a free request is sent from time to time."""
    HALF_OPEN = "half_open"
    """One at a time, until one is accepted."""


class CircuitBreaker(Struct):
    """
    Decides whether a job may be submitted now. Every method takes ``now``, a reading of the monotonic clock.

    Between two accepted answers, at most `UNCERTAIN_TO_OPEN` POSTs become uncertain, and those that were
    already unanswered at the first of them; then one for each trial.

    Attributes:
        state: Whether jobs are submitted.
        unanswered: POSTs that wait for their answer.
        probe_at: When to send a free request next, and to call `record_probe`; None if no probe is needed.
    """

    state: CircuitState = CircuitState.CLOSED
    unanswered: int = 0
    probe_at: float | None = None
    _uncertain: int = 0
    _was_uncertain: deque[bool] = field(default_factory=partial(deque[bool], maxlen=WINDOW))
    _not_sent: int = 0
    _forbidden: int = 0
    _refusal: str = ""
    _same_refusals: int = 0
    _silent_since: float = 0.0
    _failed_probes: int = 0
    _failed_trials: int = 0
    _trial_at: float = 0.0

    @property
    def is_forbidden(self) -> bool:
        """Whether so many jobs in a row were refused with 403 that the key must be the reason: stop the run."""
        return self._forbidden >= FORBIDDEN_TO_STOP

    @property
    def repeated_refusal(self) -> str | None:
        """The text with which so many jobs in a row were refused that the run must stop; None otherwise."""
        return self._refusal if self._same_refusals >= SAME_REFUSALS_TO_STOP else None

    def may_submit(self, now: float) -> bool:
        """Return whether one more POST may be sent now."""
        if self.is_forbidden or self.repeated_refusal is not None or self.state is CircuitState.OPEN:
            return False
        if self.state is CircuitState.HALF_OPEN or self._uncertain > 0 or self._not_sent > 0:
            return self.unanswered == 0
        return self.unanswered < _MAX_UNANSWERED or now - self._silent_since < _SILENCE_S

    @property
    def why(self) -> str:
        """What holds the next job back if `may_submit` says no, in words."""
        match self.state:
            case CircuitState.OPEN:
                return "gateway outage: waiting until it answers again"
            case CircuitState.HALF_OPEN:
                return "after an outage: one job at a time"
            case _:
                return "waiting for answers to earlier submissions"

    def record_sent(self, now: float) -> None:
        """Record that a POST is sent now."""
        if self.unanswered == 0:
            self._silent_since = now
        self.unanswered += 1

    def record_answer(self, outcome: SubmitOutcome, now: float) -> None:
        """Record the outcome of a POST: exactly once for each `record_sent`; an interrupted one is ambiguous."""
        self.unanswered -= 1
        self._silent_since = now
        match outcome:
            case Accepted():
                self._record_accepted()
            case Ambiguous():
                self._record_uncertain(now)
            case NotSent():
                self._record_not_sent(now)
            case _:
                # The gateway is there; that does not show whether it accepts jobs again.
                self._not_sent = 0
        if isinstance(outcome, Rejected):
            self._count_refusal(outcome.failure)

    def record_probe(self, now: float, *, is_healthy: bool) -> None:
        """Record whether the gateway itself answered the free request."""
        if self.state is not CircuitState.OPEN:
            return
        if not is_healthy:
            self._schedule_probe(now)
        elif now < self._trial_at:
            self.probe_at = self._trial_at
        else:
            self.state, self.probe_at = CircuitState.HALF_OPEN, None

    def _count_refusal(self, failure: Failure) -> None:
        self._forbidden = self._forbidden + 1 if failure.cls is FailureClass.FORBIDDEN else 0
        text = _OWN_ID.sub("", failure.message)
        # A content policy says the same about each prompt that it refuses.
        is_counted = failure.cls is FailureClass.INVALID_REQUEST
        if not is_counted or text != self._refusal:
            self._same_refusals = 0
        self._refusal = text
        self._same_refusals += is_counted

    def _record_accepted(self) -> None:
        self._uncertain = self._not_sent = self._forbidden = self._same_refusals = 0
        self._was_uncertain.append(False)
        self._failed_probes = self._failed_trials = 0
        # A POST that was already unanswered when the outage began shows less than a trial would.
        self.state = CircuitState.HALF_OPEN if self.state is CircuitState.OPEN else CircuitState.CLOSED
        self.probe_at = None

    def _record_uncertain(self, now: float) -> None:
        self._uncertain += 1
        self._was_uncertain.append(True)
        is_outage = self._uncertain >= UNCERTAIN_TO_OPEN or sum(self._was_uncertain) >= UNCERTAIN_IN_WINDOW
        if self.state is CircuitState.HALF_OPEN:
            self._failed_trials += 1
            self._open(now, trial_at=now + backoff_s(_MAX_PROBE_S, _MAX_TRIAL_S, self._failed_trials))
        elif self.state is CircuitState.CLOSED and is_outage:
            self._open(now, trial_at=now)

    def _record_not_sent(self, now: float) -> None:
        self._not_sent += 1
        if self.state is CircuitState.HALF_OPEN or (
            self.state is CircuitState.CLOSED and self._not_sent >= UNCERTAIN_TO_OPEN
        ):
            self._open(now, trial_at=now)

    def _open(self, now: float, *, trial_at: float) -> None:
        self.state = CircuitState.OPEN
        self._was_uncertain.clear()
        self._trial_at = trial_at
        self._schedule_probe(now)

    def _schedule_probe(self, now: float) -> None:
        self._failed_probes += 1
        self.probe_at = now + backoff_s(_FIRST_PROBE_S, _MAX_PROBE_S, self._failed_probes)


class StallTimer(Struct):
    """
    Detects a gateway that makes no progress for too long. Every method takes ``now``, a monotonic reading.

    No job fails because it is throttled or the gateway is down; each is retried. Without this limit, a run that
    nobody watches would wait forever. Only answers count, and the waits that they ask for: a run that sends nothing,
    because its own limits hold it back, is not stalled.

    >>> timer = StallTimer(limit_s=3600.0)
    >>> for now in (0.0, 10.0, 20.0):
    ...     timer.record_refusal("429", now)
    >>> timer.expires_at
    3600.0
    >>> timer.record_progress()
    >>> timer.expires_at
    inf
    >>> timer.record_refusal("429", 4000.0, wait_s=7200.0)
    >>> timer.expires_at
    7600.0

    Attributes:
        last_message: What the last refusal said.
        expires_at: When it is time to stop if nothing changes; infinity if it will not be.
    """

    limit_s: float
    last_message: str = ""
    expires_at: float = inf
    _since: float = inf
    _waits_until: float = -inf
    _refusals: int = 0

    def record_progress(self) -> None:
        """Record that the gateway did something for the run: it accepted or rejected a job, or showed a task."""
        self._since, self._waits_until, self._refusals = inf, -inf, 0
        self.expires_at = inf

    def record_refusal(self, message: str, now: float, *, wait_s: float | None = None) -> None:
        """
        Record that a submission led nowhere for now, and why.

        Args:
            wait_s: How long the gateway asks to wait.
        """
        self.last_message = message
        self._refusals += 1
        self._waits_until = max(self._waits_until, now + (wait_s or 0.0))
        self._since = min(self._since, now)
        at = self._since + self.limit_s
        self.expires_at = at if self._refusals >= MIN_REFUSALS or self._waits_until > at else inf
