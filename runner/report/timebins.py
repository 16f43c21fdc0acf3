"""What happened when, counted in at most a few hundred intervals, however long the run was."""

from __future__ import annotations

from runner.core.value import frozen

_MOST = 200
# Each width is a multiple of the one before, so that intervals can be joined.
_WIDTHS_S = (1, 5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400, 604_800)


@frozen
class Bins:
    """
    Counts in intervals of one width, without gaps.

    Attributes:
        start_at: Where the first interval begins.
        counts: For each kind, one number an interval.
    """

    start_at: int
    width_s: int
    counts: dict[str, list[int]]


class TimeBins:
    """Takes moments in one by one, and widens its intervals when there are too many of them."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self._width_s = _WIDTHS_S[0]
        self._counts: dict[int, list[int]] = {}

    def add(self, kind: str, at: float) -> None:
        """Count one moment, in seconds since 1970."""
        place, column = int(at // self._width_s), self._kinds.index(kind)
        counts = self._counts.get(place)
        if counts is not None:
            counts[column] += 1
            return
        row = self._counts[place] = [0] * len(self._kinds)
        row[column] = 1
        while self._span() > _MOST:
            self._widen()

    def bins(self) -> Bins | None:
        """Say what was counted; None where it was nothing."""
        if not self._counts:
            return None
        first, last = min(self._counts), max(self._counts)
        zeros = [0] * len(self._kinds)
        rows = [self._counts.get(place, zeros) for place in range(first, last + 1)]
        return Bins(
            start_at=first * self._width_s,
            width_s=self._width_s,
            counts={kind: [row[column] for row in rows] for column, kind in enumerate(self._kinds)},
        )

    def _span(self) -> int:
        return max(self._counts) - min(self._counts) + 1

    def _widen(self) -> None:
        wider = next((width for width in _WIDTHS_S if width > self._width_s), self._width_s * 4)
        factor = wider // self._width_s
        joined: dict[int, list[int]] = {}
        for place, counts in self._counts.items():
            row = joined.setdefault(place // factor, [0] * len(self._kinds))
            for column, count in enumerate(counts):
                row[column] += count
        self._width_s, self._counts = wider, joined
