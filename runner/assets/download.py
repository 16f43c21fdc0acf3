"""One download under way, as a value that changes: what is on disk of it, and what is known of the rest."""

from __future__ import annotations

from collections.abc import Callable

from runner.assets.part import PartFile, size_of
from runner.assets.reply import OVERLAP_BYTES, Ask, Setback, StartOver
from runner.assets.wish import AssetWish, PartFacts, part_of
from runner.core.model import Failure, FailureClass

Remember = Callable[[PartFacts], None]


class Download:
    """
    What `Fetcher` carries from one try to the next.

    Attributes:
        must_start_over: Whether the part on disk turned out to belong to another file.
        where: The address that was asked last, for messages, without its query.
    """

    __slots__ = ("known", "must_start_over", "part", "remember", "where", "wish")

    def __init__(self, wish: AssetWish, remember: Remember) -> None:
        self.wish = wish
        self.remember = remember
        path = part_of(wish.path)
        self.part = PartFile(path, size_of(path)) if wish.known is not None else PartFile(path)
        self.known = wish.known or PartFacts()
        self.must_start_over = False
        self.where = "the part file"

    @property
    def may_be_whole(self) -> bool:
        """Whether an earlier process died between the last byte and the final name."""
        return 0 < self.part.size == self.known.total_bytes

    def next_ask(self) -> Ask:
        """Say what to ask for: the rest and an overlap, or all where there is too little to go on from."""
        size, total = self.part.size, self.known.total_bytes
        is_too_long = total is not None and size > total
        if self.must_start_over or is_too_long or size <= OVERLAP_BYTES:
            return Ask()
        return Ask(size - OVERLAP_BYTES, self.known)

    def learn(self, facts: PartFacts) -> None:
        """Take in what an answer says of the whole file, and have it remembered where it is news."""
        if facts != self.known or not self.part.size:
            self.known = facts
            self.remember(facts)

    def shortfall(self) -> Setback | StartOver | None:
        """Say what is missing of a file whose body has ended; None if nothing is, as far as lengths tell."""
        size, total = self.part.size, self.known.total_bytes
        if not self.part.is_caught_up or (total is not None and size > total):
            return StartOver()
        if total is not None and size < total:
            message = f"{self.where} gave {size} of {total} bytes"
            return Setback(Failure(FailureClass.DOWNLOAD_FAILED, message))
        return None
