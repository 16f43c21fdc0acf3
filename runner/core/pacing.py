"""
Space requests evenly, and find the rate that the gateway really allows.

The limits of this API are not published and shared with strangers (facts F86, F87), and a 429 says only
"less". So a pacer starts at the configured rate, and learns:

- A 429 is weighted by the answers accepted since the previous one: after ``n`` of them the rate is cut by
  ``1/(n+1)``, by a twentieth at least and by half at most, once for each burst. So a single 429 among many
  accepted answers costs little, and if half of all requests are refused the rate is halved.
- A 429 after a 429 means "closed for now". The rate remains, and the pauses become longer. If the gateway
  then accepts again, its limit is a number per window, such as a minute: the rate is cut to what was accepted
  over the last minute.
- Growth is that of TCP Cubic (RFC 9438), counted in accepted answers: fast up to the rate that was refused,
  slow around it, then faster and faster. Each 429 of a burst stretches the curve, so that refusals remain
  rare and little is left unused.
- Refusals whose share does not fall with the rate are not a reason to slow down: see `BackgroundRefusals`.
- Slow answers and 503s stop the growth, because they precede 429s.
- Answers that leave a job uncertain slow down more, for longer: see `UncertainBackoff`.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from runner.core.congestion import (
    MIN_PER_S,
    RECOVERY_ANSWERS,
    BackgroundRefusals,
    CubicRecovery,
    UncertainBackoff,
)
from runner.core.retry import backoff_s

# The constants were tuned on simulated gateways (token buckets and fixed windows, from 0.5 to 50 requests a
# second, configured at up to ten times that); tests hold what they achieve there.
_MIN_CUT = 0.05
_MAX_CUT = 0.5
_WINDOW_REFUSALS = 3
"""After this many 429s in a row, the limit is a number per window, such as a minute."""
_MAX_PAUSE_S = 15.0
_FREEZE_S = 30.0

# Timers fire up to some milliseconds late. Above 20 requests a second that would cost more than a few
# percent of the rate, so it is compensated there; below, spacing is exact.
_COMPENSATED_PER_S = 20.0
_TIMER_S = 0.01

_WINDOW_S = 60.0
_MIN_ANSWERS = 8
"""Fewer accepted answers in the last minute say nothing about the gateway's rate."""


class RateSource(StrEnum):
    """What limits the rate."""

    CONFIGURED = "configured"
    LEARNED = "learned"
    CAUTIOUS = "cautious"
    PAUSED = "paused"


class _AcceptedRate(Struct):
    """Accepted answers per second over about the last minute, in constant memory."""

    first_at: float | None = None
    window_at: float = 0.0
    count: int = 0
    count_before: int = 0

    def add(self, now: float) -> None:
        """Count an answer."""
        if self.first_at is None:
            self.first_at = self.window_at = now
        if now - self.window_at >= _WINDOW_S:
            self._roll(now)
        self.count += 1

    def per_s(self, now: float) -> float | None:
        """Return the rate, or None if too few were accepted."""
        count, elapsed_s = self.last_minute(now)
        return count / elapsed_s if count >= _MIN_ANSWERS and elapsed_s > 0 else None

    def last_minute(self, now: float) -> tuple[float, float]:
        """Return the number of answers of about the last minute, and over how many seconds they came."""
        if self.first_at is None:
            return 0.0, 0.0
        self._roll(now)
        share_before = 1 - (now - self.window_at) / _WINDOW_S
        return self.count + self.count_before * share_before, min(now - self.first_at, _WINDOW_S)

    def _roll(self, now: float) -> None:
        windows = int((now - self.window_at) // _WINDOW_S)
        if windows > 0:
            self.count_before = self.count if windows == 1 else 0
            self.count = 0
            self.window_at += windows * _WINDOW_S


class _Latency(Struct):
    """Detects that answers become slower than usual."""

    usual_s: float | None = None
    recent_s: float = 0.0

    def add(self, latency_s: float) -> None:
        """Record how long an answer took."""
        if self.usual_s is None:
            self.usual_s = self.recent_s = latency_s
            return
        self.recent_s += (latency_s - self.recent_s) / 5
        # A lasting change becomes the usual latency within some hundred answers.
        self.usual_s += (latency_s - self.usual_s) / 100

    @property
    def is_rising(self) -> bool:
        """Whether the last few took half as long again as usual, and at least 0.1 s more."""
        return self.usual_s is not None and self.recent_s > 1.5 * self.usual_s + 0.1


class Pacer:
    """
    The pace of one kind of request. Every method takes ``now``, a reading of the monotonic clock.

    Over any ``t`` seconds it allows at most ``rate * t + 1`` requests: there is no burst, neither at the
    start nor after a pause. (Above 20 a second ``t`` is 10 ms more.)

    Args:
        per_s: The configured rate, never exceeded.
        learned_per_s: The `learned_per_s` of an earlier run, to start with.

    >>> pacer = Pacer(2.0)
    >>> pacer.record_sent(100.0)
    >>> pacer.opens_at
    100.5
    """

    def __init__(self, per_s: float, *, learned_per_s: float | None = None) -> None:
        self.configured_per_s = per_s
        self._adapted_per_s = per_s
        # None until something was uncertain, or refused: most runs see neither.
        self._brake: UncertainBackoff | None = None
        self._background: BackgroundRefusals | None = None
        self._recovery: CubicRecovery | None = None
        if learned_per_s is not None and 0 < learned_per_s < per_s:
            self._adapted_per_s = max(learned_per_s, self._min_per_s)
            self._recovery = CubicRecovery(
                self._adapted_per_s * (1 - _MIN_CUT), self._adapted_per_s, answers=RECOVERY_ANSWERS
            )
        self._last = float("-inf")
        self._paused_until = float("-inf")
        self._frozen_until = float("-inf")
        self._reacted_at = float("-inf")
        self._sent_before_per_s = per_s
        self._accepted_since_cut = 0
        self._throttled_in_row = 0
        self._accepted = _AcceptedRate()
        self._latency = _Latency()
        self._initial_per_s = self._adapted_per_s

    @property
    def per_s(self) -> float:
        """The rate that is allowed now."""
        per_s, brake = self._adapted_per_s, self._brake
        return per_s if brake is None or brake.per_s > per_s else brake.per_s

    @property
    def opens_at(self) -> float:
        """When the next request may be sent; a time before now means at once."""
        at = self.rate_opens_at
        return at if at > self._paused_until else self._paused_until

    @property
    def rate_opens_at(self) -> float:
        """When the rate alone allows the next request, without the pauses that the server asked for."""
        return self._last + 1 / (self._adapted_per_s if self._brake is None else self.per_s)

    @property
    def learned_per_s(self) -> float | None:
        """
        The rate found to be allowed, for the next run; None if the configured one was never refused.

        This is the rate that was refused last, not the one after the cut: a run that ends early has no time to
        grow again, and a row of such runs would become slower each time.
        """
        refused_per_s = self.configured_per_s if self._recovery is None else self._recovery.refused_per_s
        if self._background is None or self._background.is_undecided:
            # Passed on, a rate that was cut for nothing would be cut again and again.
            refused_per_s = max(refused_per_s, self._initial_per_s)
        per_s = max(self._adapted_per_s, refused_per_s)
        if self._brake is not None:
            per_s = min(per_s, self._brake.learned_per_s)
        return per_s if per_s < self.configured_per_s else None

    def accepted_per_s(self, now: float) -> float:
        """Return the rate of answers other than refusals, over about the last minute."""
        count, elapsed_s = self._accepted.last_minute(now)
        # The first seconds count in full: two answers at once are not a rate.
        return count / max(elapsed_s, 5.0)

    def limited_by(self, now: float) -> RateSource:
        """Return what limits the rate now."""
        if now < self._paused_until:
            return RateSource.PAUSED
        if self.per_s < self._adapted_per_s:
            return RateSource.CAUTIOUS
        return RateSource.LEARNED if self._adapted_per_s < self.configured_per_s else RateSource.CONFIGURED

    def record_sent(self, now: float) -> None:
        """Record that a request is sent now. The caller has checked that ``opens_at``, or `rate_opens_at`, is not later."""
        opens_at = self.opens_at
        is_barely_late = opens_at < now < opens_at + _TIMER_S and self.per_s > _COMPENSATED_PER_S
        self._last = opens_at if is_barely_late else now

    def record_accepted(self, now: float, latency_s: float) -> None:
        """Record an answer other than a refusal, and how long it took: the rate may grow."""
        if self._throttled_in_row >= _WINDOW_REFUSALS:
            self._fit_window(now)
        self._throttled_in_row = 0
        self._accepted_since_cut += 1
        self._accepted.add(now)
        self._latency.add(latency_s)
        if self._brake is not None:
            self._brake.record_accepted()
        if self._recovery is None:
            # Nothing was refused so far.
            return
        if self._background is not None:
            self._background.record(self._sent_per_s(now - latency_s), is_refused=False)
        if now >= self._frozen_until and not self._latency.is_rising:
            self._recovery.answers += 1
            self._adapted_per_s = min(self._recovery.per_s, self.configured_per_s)

    def record_throttled(self, now: float, *, sent_at: float, retry_after_s: float | None = None) -> None:
        """
        Record a 429: slow down, once for each burst, and pause if the server says so.

        Args:
            sent_at: When the refused request was sent. If that was before the last cut, the 429 is of the same burst.
            retry_after_s: The pause that the server asks for, or None.
        """
        self.pause(now + (retry_after_s or 0.0))
        background = self._background = self._background or BackgroundRefusals()
        background.record(self._sent_per_s(sent_at), is_refused=True)
        is_new_burst = sent_at > self._reacted_at
        if is_new_burst:
            if self._is_background(background):
                return
            self._reacted_at, self._sent_before_per_s = now, self._adapted_per_s
            self._throttled_in_row += 1
        if self._recovery is None or (is_new_burst and self._throttled_in_row == 1):
            self._cut()
            return
        self._recovery.refusals += 1
        if is_new_burst:
            self.pause(now + backoff_s(1 / self._adapted_per_s, _MAX_PAUSE_S, self._throttled_in_row - 1))

    def _sent_per_s(self, sent_at: float) -> float:
        """Return the rate at which a request was sent."""
        return self._adapted_per_s if sent_at > self._reacted_at else self._sent_before_per_s

    def _is_background(self, background: BackgroundRefusals) -> bool:
        """Return whether the last 429 is one that comes at any rate; go back to an earlier rate if that is new."""
        if background.forgives():
            return True
        per_s = background.find()
        if per_s is None:
            return False
        self._adapted_per_s = min(max(self._adapted_per_s, per_s), self.configured_per_s)
        self._recovery = CubicRecovery(
            self._adapted_per_s * (1 - _MIN_CUT), self._adapted_per_s, answers=RECOVERY_ANSWERS
        )
        return True

    def _cut(self) -> None:
        """Cut the rate by the share of requests refused since the last cut, including the one refused now."""
        refused_share = 1 / (self._accepted_since_cut + 1)
        cut = min(max(refused_share, _MIN_CUT), _MAX_CUT)
        refused_per_s, self._adapted_per_s = (
            self._adapted_per_s,
            max(self._adapted_per_s * (1 - cut), self._min_per_s),
        )
        self._recovery = CubicRecovery(self._adapted_per_s, refused_per_s)
        self._accepted_since_cut = 0

    def _fit_window(self, now: float) -> None:
        """Cut the rate to what was accepted over the last minute, including closed times, by half at most."""
        accepted_per_s = self._accepted.per_s(now)
        if accepted_per_s is None or self._recovery is None:
            return
        self._adapted_per_s = max(
            min(accepted_per_s, self._adapted_per_s), self._adapted_per_s * (1 - _MAX_CUT), self._min_per_s
        )
        self._recovery = CubicRecovery(
            self._adapted_per_s, self._adapted_per_s / (1 - _MIN_CUT), refusals=self._recovery.refusals
        )
        self._accepted_since_cut = 0

    def record_uncertain(self, now: float, *, sent_at: float) -> None:
        """Record an answer that left a job uncertain: it may have been refused because it was sent too fast."""
        self._cautious().record_uncertain(now, sent_at=sent_at, per_s=self.per_s)
        self.freeze_growth(now)

    def record_outage(self) -> None:
        """Record that nothing is sent until the gateway answers again: the rate is low after that."""
        self._cautious().record_outage()

    def _cautious(self) -> UncertainBackoff:
        if self._brake is None:
            self._brake = UncertainBackoff(self.configured_per_s)
        return self._brake

    def pause(self, until: float) -> None:
        """Allow nothing before then; a later end that was set before remains."""
        self._paused_until = max(self._paused_until, until)

    def freeze_growth(self, now: float) -> None:
        """Stop the growth of the rate for a while, after a sign of overload (a 503)."""
        self._frozen_until = now + _FREEZE_S

    @property
    def _min_per_s(self) -> float:
        return min(MIN_PER_S, self.configured_per_s)
