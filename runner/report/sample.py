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
        place = self._random.randrange(self.offered)
        if place < self._most:
            self.kept[place] = make()


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

    def chosen(self) -> list[T]:
        """Give the jobs to show, at most as many as there is room for."""
        succeeded, others = self._succeeded.kept, self._others.kept
        room_for_others = max(self._most // 2, self._most - len(succeeded))
        shown = others[:room_for_others]
        return shown + succeeded[: self._most - len(shown)]
