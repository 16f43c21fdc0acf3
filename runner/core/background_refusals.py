"""
Tell refusals that come at any rate from those that a limit causes.

A limit accepts so many requests a second, however many are sent: the share that it refuses falls with the rate, and is
nothing below the limit. A share that remains while the rate falls has another reason, and slowing down would not help.
A limit of so many in a time refuses in rows. These explanations are compared by how likely they make the answers since
the first refusal.
"""

from __future__ import annotations

import math

_STEP = 1.1
"""Answers are counted by their rates, in steps of a tenth."""
_MAX_ANSWERS = 240.0
"""More answers count half, so that what was long ago is forgotten."""
_BELOW_LIMIT = 0.02
"""The share that a limit refuses below its rate, since requests arrive unevenly."""
_SHARES = (0.05, 0.08, 0.12, 0.18, 0.25, 0.33)
"""Shares of refusals that may come at any rate: fewer cost little, and more would be an outage."""
_ROWS = (0.6, 0.8, 0.95)
"""Shares of refusals that are followed by another, if a limit of so many in a time causes them."""
_PROOF = 4.0
"""So much greater must the logarithm of the likelihood be."""
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
            # The first refusal itself is no sample: without it nothing would be recorded.
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
    """Return the logarithm of the likelihood of so many answers and refusals, if such a share is refused."""
    answers, refusals = counts
    return refusals * math.log(share) + (answers - refusals) * math.log(1 - share)
