"""Which jobs a page shows one by one when there are too many to show all."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from runner.core.summary import bucket_middle_s

T = TypeVar("T")


class Reservoir(Generic[T]):
    """
    An even sample of a stream whose length nobody knows, in bounded memory (Vitter's algorithm R).

    The draws come from a generator of its own with a fixed seed: the same run gives the same page.
    """

    def __init__(self, most: int) -> None:
        self.offered = 0
        self.kept: list[T] = []
        self._most = most
        self._random = random.Random(most)

    def offer(self, make: Callable[[], T]) -> None:
        """Offer one item, made only where it is kept."""
        self.offered += 1
        if len(self.kept) < self._most:
            self.kept.append(make())
            return
        place = int(self._random.random() * self.offered)
        if place < self._most:
            self.kept[place] = make()

    def shrink(self) -> None:
        """Keep one item less from now on; an even sample of an even sample is one."""
        self._most = len(self.kept) - 1
        self.kept[int(self._random.random() * len(self.kept))] = self.kept[-1]
        del self.kept[-1]


class JobSample(Generic[T]):
    """
    A sample of jobs in which those that did not succeed get up to half of the room.

    Nobody opens a report of a million jobs to look at successes alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._succeeded: Reservoir[T] = Reservoir(most)
        self._others: Reservoir[T] = Reservoir(most)

    def offer(self, make: Callable[[], T], *, succeeded: bool) -> None:
        """Offer one job."""
        (self._succeeded if succeeded else self._others).offer(make)
        if len(self._succeeded.kept) + len(self._others.kept) > self._most:
            has_many_others = len(self._others.kept) > self._most // 2
            (self._others if has_many_others else self._succeeded).shrink()

    def chosen(self) -> list[T]:
        """Give the jobs to show, at most as many as there is room for."""
        return self._others.kept + self._succeeded.kept


_MOST = 200
# Each width is a multiple of the one before, so that intervals can be joined.
_WIDTHS_S = (1, 5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400, 604_800)


class Bins(Struct, frozen=True):
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


_BARS = 40
_LOGARITHMIC_FROM = 12


class Histogram(Struct, frozen=True):
    """
    Counts of durations in bars between shared edges.

    Attributes:
        edges_s: One more than there are bars. Evenly spaced, or evenly by their logarithm where
            the longest is more than 12 times the shortest.
    """

    edges_s: list[float]
    is_logarithmic: bool
    counts: dict[str, list[int]]


def histogram(counts_by_model: Mapping[str, Mapping[int, int]]) -> Histogram | None:
    """Regroup the fine buckets of `core.durations` into bars; None where there is nothing to draw."""
    used = [index for counts in counts_by_model.values() for index in counts]
    if not used:
        return None
    low, high = bucket_middle_s(min(used)) * 0.99, bucket_middle_s(max(used)) * 1.01
    is_logarithmic = high > low * _LOGARITHMIC_FROM
    scale, back = (math.log, math.exp) if is_logarithmic else (float, float)
    step = (scale(high) - scale(low)) / _BARS
    rows: dict[str, list[int]] = {}
    for model, counts in counts_by_model.items():
        row = rows[model] = [0] * _BARS
        for index, count in counts.items():
            place = int((scale(bucket_middle_s(index)) - scale(low)) / step)
            row[min(max(place, 0), _BARS - 1)] += count
    edges_s = [round(back(scale(low) + step * place), 3) for place in range(_BARS + 1)]
    return Histogram(edges_s, is_logarithmic, rows)
