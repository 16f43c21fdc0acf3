"""Which jobs a page shows one by one when there are too many to show all."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, TypeVar

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
