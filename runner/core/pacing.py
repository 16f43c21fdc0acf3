"""
Space requests evenly, and find the rate that the gateway really allows.

Nobody publishes the limits of this API, they are shared with strangers (facts
F86, F87), and a 429 says only "less". So a pacer starts at the configured rate, and learns:

- A 429 is weighed by the answers accepted since the one before: after ``n`` of them the rate is cut
  by ``1/(n+1)``, by a twentieth at least and by half at most, once for each burst. So one that strays
  among many acceptances costs little, and where half of all requests are refused the rate halves.
- A 429 after a 429 says "closed for now". The rate stays, and the pauses become longer. What opens
  again was a window, such as so many a minute: the rate goes down to what was accepted over the last minute.
- Growth is that of TCP Cubic (RFC 9438), counted in accepted answers: quick up to where the 429
  came, slow around it, then quicker and quicker. Each 429 of a burst stretches the curve, so that refusals
  stay rare, and little is left unused.
- Slow answers and 503s stop the growth, since they come before the 429s.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

# The constants were tuned on simulated gateways (token buckets and fixed windows, from 0.5 to 50 requests a
# second, configured at up to ten times that); tests hold what they achieve there.
_LEAST_CUT = 0.05
_DEEPEST_CUT = 0.5
_ENOUGH_ANSWERS = 8
"""Accepted answers in the last minute from which their rate says something about the gateway."""
_PATIENCE = 60
"""Accepted answers for each 429 until the refused rate is reached again: so about one in sixty is refused."""
_LONGEST_PATIENCE_S = 45.0
"""The same in seconds at the refused rate, for a flood of 429s: it must not end growth for good."""
_LONG_REFUSAL = 3
"""429s in a row after which the limit is one of a window, such as so many a minute."""
_LONGEST_PAUSE_S = 15.0
_HOLD_S = 30.0
_SLOWEST_PER_S = 1 / 120

# Timers ring up to some milliseconds late. Past 20 grants a second that would cost more than a few per
# cent of the rate, so it is made up for there; below, spacing is exact.
_COARSE_PER_S = 20.0
_TIMER_S = 0.01


class RateSource(StrEnum):
    """What holds the next grant back."""

    CONFIGURED = "configured"
    LEARNED = "learned"
    PAUSED = "paused"


class Pacer:
    """
    Grants for one kind of request. Every method takes ``now``, a reading of the monotonic clock.

    Over any window of ``t`` seconds it grants at most ``rate * t + 1`` requests: there is
    no burst, neither at the start nor after a rest. (Past 20 a second ``t`` is 10 ms more.)

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
        self.per_s = per_s
        self._climb: _CubicRecovery | None = None
        if learned_per_s is not None and 0 < learned_per_s < per_s:
            self.per_s = max(learned_per_s, self._slowest_per_s)
            self._climb = _CubicRecovery(self.per_s * (1 - _LEAST_CUT), self.per_s, answers=_PATIENCE)
        self._last = float("-inf")
        self._paused_until = float("-inf")
        self._held_until = float("-inf")
        self._reacted_at = float("-inf")
        self._accepted_since_cut = 0
        self._throttled_in_row = 0
        self._accepted = _AcceptedRate()
        self._latency = _Latency()

    @property
    def opens_at(self) -> float:
        """When the next request may be sent; any time before now means at once."""
        return max(self._last + 1 / self.per_s, self._paused_until)

    @property
    def learned_per_s(self) -> float | None:
        """The rate found to be allowed, for the next run; None where the configured one was never refused."""
        return self.per_s if self._climb is not None and self.per_s < self.configured_per_s else None

    def accepted_per_s(self, now: float) -> float:
        """Give the rate of answers that were no refusal, over about the last minute."""
        count, elapsed_s = self._accepted.lately(now)
        # The first seconds count in full: two answers at once are no rate.
        return count / max(elapsed_s, 5.0)

    def limited_by(self, now: float) -> RateSource:
        """Say what the pace comes from."""
        if now < self._paused_until:
            return RateSource.PAUSED
        return RateSource.LEARNED if self.per_s < self.configured_per_s else RateSource.CONFIGURED

    def record_sent(self, now: float) -> None:
        """Note that a request is sent now. The caller has seen that ``opens_at <= now``."""
        is_barely_late = self.per_s > _COARSE_PER_S and now - self.opens_at < _TIMER_S
        self._last = self.opens_at if is_barely_late else now

    def record_accepted(self, now: float, latency_s: float) -> None:
        """Note an answer that was no refusal, and how long it took: the rate may grow."""
        if self._throttled_in_row >= _LONG_REFUSAL:
            self._fit_window(now)
        self._throttled_in_row = 0
        self._accepted_since_cut += 1
        self._accepted.add(now)
        self._latency.add(latency_s)
        if self._climb is not None and now >= self._held_until and not self._latency.is_rising:
            self._climb.answers += 1
            self.per_s = min(self._climb.per_s, self.configured_per_s)

    def record_throttled(self, now: float, *, sent_at: float, retry_after_s: float | None = None) -> None:
        """
        Note a 429: slow down, once for each burst of them, and pause where the server says so.

        Args:
            sent_at: When the refused request was sent. One from before the last cut says nothing new.
        """
        self.pause(now + (retry_after_s or 0.0))
        is_news = sent_at > self._reacted_at
        if is_news:
            self._reacted_at = now
            self._throttled_in_row += 1
        if self._climb is None or (is_news and self._throttled_in_row == 1):
            self._cut()
            return
        self._climb.refusals += 1
        if is_news:
            doublings = min(self._throttled_in_row - 2, 10)
            self.pause(now + min(2.0**doublings / self.per_s, _LONGEST_PAUSE_S))

    def _cut(self) -> None:
        """Slow down by the share of requests refused since the last cut, counting the one refused now."""
        refused_share = 1 / (self._accepted_since_cut + 1)
        cut = min(max(refused_share, _LEAST_CUT), _DEEPEST_CUT)
        refused_per_s, self.per_s = self.per_s, max(self.per_s * (1 - cut), self._slowest_per_s)
        self._climb = _CubicRecovery(self.per_s, refused_per_s)
        self._accepted_since_cut = 0

    def _fit_window(self, now: float) -> None:
        """Go down to what was accepted over the last minute, closed times included, by half at most."""
        accepted_per_s = self._accepted.per_s(now)
        if accepted_per_s is None or self._climb is None:
            return
        self.per_s = max(
            min(accepted_per_s, self.per_s), self.per_s * (1 - _DEEPEST_CUT), self._slowest_per_s
        )
        self._climb = _CubicRecovery(self.per_s, self.per_s / (1 - _LEAST_CUT), refusals=self._climb.refusals)
        self._accepted_since_cut = 0

    def pause(self, until: float) -> None:
        """Grant nothing before then. An earlier end than one already set changes nothing."""
        self._paused_until = max(self._paused_until, until)

    def freeze_growth(self, now: float) -> None:
        """Note a sign of trouble (a 503): no growth for a while."""
        self._held_until = now + _HOLD_S

    @property
    def _slowest_per_s(self) -> float:
        return min(_SLOWEST_PER_S, self.configured_per_s)


class _CubicRecovery(Struct):
    """The way from the rate after a cut back to the refused one, and past it."""

    cut_per_s: float
    refused_per_s: float
    refusals: int = 1
    answers: int = 0

    @property
    def per_s(self) -> float:
        """The rate after that many answers: a cubic curve, flat around the refused rate."""
        patience = min(_PATIENCE * self.refusals, max(_PATIENCE, _LONGEST_PATIENCE_S * self.refused_per_s))
        ahead = 1 - self.answers / patience
        return self.refused_per_s - (self.refused_per_s - self.cut_per_s) * ahead**3


class _AcceptedRate:
    """Accepted answers a second over about the last minute, in constant memory."""

    _WINDOW_S = 60.0

    def __init__(self) -> None:
        self._first_at: float | None = None
        self._began_at = 0.0
        self._count = 0
        self._count_before = 0

    def add(self, now: float) -> None:
        """Count an answer."""
        if self._first_at is None:
            self._first_at = self._began_at = now
        self._roll(now)
        self._count += 1

    def per_s(self, now: float) -> float | None:
        """Give the rate, or None while too little was accepted to know one."""
        count, elapsed_s = self.lately(now)
        return count / elapsed_s if count >= _ENOUGH_ANSWERS and elapsed_s > 0 else None

    def lately(self, now: float) -> tuple[float, float]:
        """Give the answers of about the last minute, and over how many seconds they came."""
        if self._first_at is None:
            return 0.0, 0.0
        self._roll(now)
        share_before = 1 - (now - self._began_at) / self._WINDOW_S
        return self._count + self._count_before * share_before, min(now - self._first_at, self._WINDOW_S)

    def _roll(self, now: float) -> None:
        windows = int((now - self._began_at) // self._WINDOW_S)
        if windows > 0:
            self._count_before = self._count if windows == 1 else 0
            self._count = 0
            self._began_at += windows * self._WINDOW_S


class _Latency:
    """Whether answers have become slower than they used to be."""

    def __init__(self) -> None:
        self._usual_s: float | None = None
        self._recent_s = 0.0

    def add(self, latency_s: float) -> None:
        """Follow how long an answer took."""
        if self._usual_s is None:
            self._usual_s = self._recent_s = latency_s
            return
        self._recent_s += (latency_s - self._recent_s) / 5
        # Slow to follow, so that a lasting change becomes usual within some hundred answers.
        self._usual_s += (latency_s - self._usual_s) / 100

    @property
    def is_rising(self) -> bool:
        """Whether the last handful took half as long again as usual, and a tenth of a second more."""
        return self._usual_s is not None and self._recent_s > 1.5 * self._usual_s + 0.1
