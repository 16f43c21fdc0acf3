"""Gateways with a limit, in simulated time, and a client that always has more to send."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from runner.core.pacing import Pacer


class Gateway(Protocol):
    """Decides whether a request that arrives now is accepted."""

    def allows(self, now: float) -> bool: ...


@dataclass
class TokenBucket:
    """Allows ``per_s`` in the long run, and ``burst`` at once after a pause."""

    per_s: float
    burst: float
    _tokens: float = field(init=False)
    _at: float = 0.0

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def allows(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class FixedWindow:
    """Allows ``per_s * window_s`` in each window, whenever they arrive in it."""

    per_s: float
    window_s: float
    _window: int = -1
    _count: int = 0

    def allows(self, now: float) -> bool:
        if (window := int(now // self.window_s)) != self._window:
            self._window, self._count = window, 0
        if self._count + 1 > self.per_s * self.window_s:
            return False
        self._count += 1
        return True


@dataclass
class SporadicRefusals:
    """Refuses one request every ``every_s`` seconds, whatever its bucket allows."""

    bucket: TokenBucket
    every_s: float
    _next_at: float = 0.0

    def allows(self, now: float) -> bool:
        if now >= self._next_at:
            self._next_at = now + self.every_s
            return False
        return self.bucket.allows(now)


@dataclass
class RandomRefusals:
    """Refuses a share of the requests at random, whatever their rate, besides what its bucket refuses."""

    bucket: TokenBucket
    share: float
    random: Random

    def allows(self, now: float) -> bool:
        return self.random.random() >= self.share and self.bucket.allows(now)


@dataclass
class ChangingLimit:
    """Allows what one gateway does, and from a time on what another does."""

    before: Gateway
    after: Gateway
    changes_at: float

    def allows(self, now: float) -> bool:
        return (self.before if now < self.changes_at else self.after).allows(now)


@dataclass
class Result:
    """What a simulated run sent, after its first half minute."""

    accepted: int = 0
    throttled: int = 0

    @property
    def throttled_share(self) -> float:
        return self.throttled / max(self.accepted + self.throttled, 1)


def simulate(
    pacer: Pacer,
    gateway: Gateway,
    *,
    until: float,
    rtt_s: float = 0.2,
    skip_s: float = 30.0,
) -> Result:
    """Send as fast as the pacer allows; a request reaches the gateway half a round trip after it was sent."""
    now, result = 0.0, Result()
    answers: list[tuple[float, float, bool]] = []
    while now < until:
        opens_at = max(pacer.opens_at, now)
        if answers and answers[0][0] <= opens_at:
            now, sent_at, ok = heapq.heappop(answers)
            if ok:
                pacer.record_accepted(now, now - sent_at)
            else:
                pacer.record_throttled(now, sent_at=sent_at)
            continue
        now = opens_at
        pacer.record_sent(now)
        ok = gateway.allows(now + rtt_s / 2)
        heapq.heappush(answers, (now + rtt_s, now, ok))
        if now >= skip_s:
            result.accepted += ok
            result.throttled += not ok
    return result
