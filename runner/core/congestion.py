"""
What refusals and uncertain answers show about the rate that the gateway allows; `core.pacing` follows it.

A limit accepts a number of requests a second, however many are sent: the share that it refuses falls with the rate, and is
nothing below the limit. A share that remains while the rate falls has another reason, and slowing down would not help.
A limit on the number in a period refuses many in a row. These explanations are compared by how likely they make the answers since
the first refusal.

After answers that leave jobs uncertain, submissions slow down too: a limiter in front of the gateway may answer 503 to
whatever is too fast (fact F89). Nobody can know whether such a job was accepted, so each costs a person's time, and a
rate that is too high must not be tried often. So the rate is halved, approaches the rate that failed only slowly, and is
low after an outage.
"""

from __future__ import annotations

import math

from msgspec import Struct

MIN_PER_S = 1 / 120
"""No lower rate is learned."""
RECOVERY_ANSWERS = 60
"""Accepted answers for each 429 until the refused rate is reached again: so about one in sixty is refused."""
_MAX_RECOVERY_S = 45.0
"""The same in seconds at the refused rate, so that many 429s at once do not end growth permanently."""


class CubicRecovery(Struct):
    """The growth from the rate after a cut to the refused rate, and beyond."""

    cut_per_s: float
    refused_per_s: float
    refusals: int = 1
    answers: int = 0

    @property
    def per_s(self) -> float:
        """The rate after that many accepted answers: a cubic curve, flat around the refused rate."""
        max_answers = max(RECOVERY_ANSWERS, _MAX_RECOVERY_S * self.refused_per_s)
        recovery_answers = min(RECOVERY_ANSWERS * self.refusals, max_answers)
        remaining = 1 - self.answers / recovery_answers
        return self.refused_per_s - (self.refused_per_s - self.cut_per_s) * remaining**3


_CUT = 0.5
_NEAR = 0.7
"""From this share of the rate that failed on, growth is slow."""
_FAST_GROWTH = 1.05
"""For each accepted answer: tenfold in 48 answers."""
_SLOW_GROWTH = 1.005
"""For each accepted answer: 72 answers from `_NEAR` to the rate that failed, and twice as many each time it fails again."""
_SAME = (0.9, 1.3)
"""A rate failed again if the new one is this many times the old one."""
_MAX_REPEATS = 10
_RESTART_SHARE = 0.05
_RESTART_PER_S = 0.1


class UncertainBackoff:
    """
    The highest rate after uncertain answers. Every method takes ``now``, a reading of the monotonic clock.

    >>> backoff = UncertainBackoff(1.0)
    >>> backoff.record_uncertain(5.0, sent_at=4.0, per_s=1.0)
    >>> backoff.per_s
    0.5

    Args:
        configured_per_s: The rate without uncertain answers.

    Attributes:
        per_s: The rate that is allowed now.
    """

    def __init__(self, configured_per_s: float) -> None:
        self.per_s = configured_per_s
        self._configured_per_s = configured_per_s
        self._failed_per_s = configured_per_s
        self._repeats = 0
        self._reacted_at = float("-inf")

    @property
    def learned_per_s(self) -> float:
        """
        The rate for the next run: the configured one, unless one rate failed again and again.

        A single uncertain answer says nothing about the rate, and neither does an outage.
        """
        return self._failed_per_s * _NEAR if self._repeats else self._configured_per_s

    def record_uncertain(self, now: float, *, sent_at: float, per_s: float) -> None:
        """
        Record an answer that left a job uncertain: halve the rate, once for each burst.

        Args:
            sent_at: When the job was sent. If that was before the last cut, the rate then says nothing about the rate now.
            per_s: The rate at which it was sent.
        """
        if sent_at <= self._reacted_at:
            return
        self._reacted_at = now
        has_failed_before = _SAME[0] <= per_s / self._failed_per_s <= _SAME[1]
        self._repeats = min(self._repeats + 1, _MAX_REPEATS) if has_failed_before else 0
        self._failed_per_s = per_s
        self._set(per_s * _CUT)

    def record_outage(self) -> None:
        """Record that no job is submitted until the gateway answers again: the rate starts low after that."""
        low_per_s = max(self._configured_per_s * _RESTART_SHARE, _RESTART_PER_S)
        self._set(min(self.per_s, low_per_s))

    def record_accepted(self) -> None:
        """Record an accepted job: the rate grows."""
        if self.per_s >= self._configured_per_s:
            return
        is_near = _NEAR * self._failed_per_s <= self.per_s < self._failed_per_s
        self._set(self.per_s * (_SLOW_GROWTH**2.0**-self._repeats if is_near else _FAST_GROWTH))

    def _set(self, per_s: float) -> None:
        min_per_s = min(MIN_PER_S, self._configured_per_s)
        self.per_s = min(max(per_s, min_per_s), self._configured_per_s)


_STEP = 1.1
"""Answers are counted by their rates, in steps of a tenth."""
_MAX_ANSWERS = 240.0
"""More answers count half, so that what was long ago is forgotten."""
_BELOW_LIMIT = 0.02
"""The share that a limit refuses below its rate, since requests arrive unevenly."""
_SHARES = (0.05, 0.08, 0.12, 0.18, 0.25, 0.33)
"""Shares of refusals that may come at any rate: fewer cost little, and more would be an outage."""
_ROWS = (0.6, 0.8, 0.95)
"""Shares of refusals that are followed by another, if a limit on the number in a period causes them."""
_PROOF = 4.0
"""By how much the logarithm of the likelihood must be greater."""
_LOWEST = 8
"""The lowest limit that is considered, in steps below the lowest rate."""
_TOLERATED = 1.5
"""Refusals that are no reason to slow down, as a multiple of the background share."""
_MAX_CREDIT = 6.0


class BackgroundRefusals:
    """
    The share of requests that are refused at any rate.

    Attributes:
        share: That share, from 0 to 1; 0 unless it was found.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._credit = 0.0
        self._counts: dict[int, tuple[float, float]] = {}
        """Answers, and refusals among them, by steps of the rate; empty before the first refusal."""
        self._after_refusal = (0.0, 0.0)
        """The same, of answers that came after a refusal."""
        self._was_refused = False

    def record(self, per_s: float, *, is_refused: bool) -> None:
        """Record an answer to a request that was sent at a rate."""
        if not self._counts and not self._was_refused:
            # The first refusal itself is not a sample: without it nothing would be recorded.
            self._was_refused = is_refused
            return
        self._credit = min(self._credit + _TOLERATED * self.share, _MAX_CREDIT)
        step = round(math.log(per_s, _STEP))
        self._counts[step] = _added(self._counts.get(step, (0.0, 0.0)), is_refused)
        if self._was_refused:
            self._after_refusal = _added(self._after_refusal, is_refused)
        self._was_refused = is_refused
        if self._totals()[0] > _MAX_ANSWERS:
            self._counts = {step: _halved(counts) for step, counts in self._counts.items() if counts[0] > 0.5}
            self._after_refusal = _halved(self._after_refusal)

    def forgives(self) -> bool:
        """Return whether the last refusal is one of those that come at any rate."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def find(self) -> float | None:
        """
        Compare the explanations, and set `share`.

        Returns:
            The rate up to which that share is all that is refused; None if a limit may cause all refusals.
        """
        advantage, limit, share = self._compare()
        if advantage < _PROOF:
            if self.share:
                # More are refused than before: there is a limit as well, or there was no other reason.
                self.share, self._counts, self._after_refusal = 0.0, {}, (0.0, 0.0)
            return None
        self.share, self._credit = share, _MAX_CREDIT
        return _STEP**limit

    @property
    def is_undecided(self) -> bool:
        """Whether too little was seen to know if a limit causes the refusals."""
        if not self._counts:
            return True
        answers, refusals = self._totals()
        fewest = refusals - math.sqrt(refusals)
        is_possible = 2 * _BELOW_LIMIT * answers <= refusals and fewest <= _SHARES[-1] * answers
        return is_possible and self._compare()[0] > -_PROOF

    def _totals(self) -> tuple[float, float]:
        answers, refusals = zip(*self._counts.values(), strict=True)
        return sum(answers), sum(refusals)

    def _compare(self) -> tuple[float, int, float]:
        """Return how much likelier a share at any rate is than none, the limit then (in steps), and the share."""
        if not self._counts:
            return 0.0, 0, 0.0
        lowest, highest = min(self._counts), max(self._counts)
        limits = range(lowest - _LOWEST, highest + 1)
        without = max(self._likelihood_of(limit, _BELOW_LIMIT) for limit in limits)
        # A limit among the lowest rates would explain everything that is refused.
        likelihood, limit, share = max(
            (self._likelihood_of(limit, share), limit, share)
            for limit in range(lowest, highest + 1)
            for share in _SHARES
        )
        in_rows = max(_likelihood(self._after_refusal, row) for row in _ROWS)
        alone = _likelihood(self._after_refusal, share)
        return min(likelihood - without, alone - in_rows), limit, share

    def _likelihood_of(self, limit: int, share: float) -> float:
        return sum(
            _likelihood(counts, 1 - (1 - share) * min(1.0, _STEP ** (limit - step)))
            for step, counts in self._counts.items()
        )


def _added(counts: tuple[float, float], is_refused: bool) -> tuple[float, float]:
    return counts[0] + 1, counts[1] + is_refused


def _halved(counts: tuple[float, float]) -> tuple[float, float]:
    return counts[0] / 2, counts[1] / 2


def _likelihood(counts: tuple[float, float], share: float) -> float:
    """Return the logarithm of the likelihood of some answers and refusals, if a share of requests is refused."""
    answers, refusals = counts
    return refusals * math.log(share) + (answers - refusals) * math.log(1 - share)
