"""A sample of jobs that is the same in every process, whatever the order of the jobs and whichever others there are."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from heapq import heappush, heappushpop
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """
    Keeps a number of items, chosen by the digests of their ids: of two samples, the smaller one is part of the larger.

    >>> sample = Sample[int](2)
    >>> for number in range(100):
    ...     sample.add(f"job-{number}", number)
    >>> list(sample)
    [1, 25]
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._added = 0
        # The largest digest first, which is the first to go; the order of adding makes every entry different.
        self._heap: list[tuple[int, int, Item]] = []

    def add(self, job_id: str, item: Item) -> None:
        """Offer an item; it is kept as long as few enough ids have a smaller digest."""
        order = -int.from_bytes(sha256(job_id.encode("utf-8", "surrogatepass")).digest())
        self._added += 1
        entry = (order, self._added, item)
        if len(self._heap) < self._size:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the items that are kept, in the order in which they were added."""
        return (item for _, _, item in sorted(self._heap, key=lambda entry: entry[1]))
