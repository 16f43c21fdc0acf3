"""
Which API key to use next: the health of a pool of keys, without the keys.

A key is known here by its fingerprint only. Tasks belong to the account and not to
the key, so any of the user's keys may ask for any of the user's tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from runner.core.model import Failure, FailureClass


class UseKey(Struct, frozen=True):
    """Submit with this key."""

    fingerprint: str


class WaitForKey(Struct, frozen=True):
    """Every key that is left cools down; the first is ready at ``until`` (a reading of the caller's clock)."""

    until: float


class NoKeyLeft(Struct, frozen=True):
    """Every key was refused: nothing more can be submitted in this run."""


KeyChoice = UseKey | WaitForKey | NoKeyLeft


class KeyPool:
    """
    The health of each key of the pool, for one run.

    A refused key is retired until the run ends; a throttled one rests for a while.
    All times are readings of one clock of the caller's choice.

    >>> ring = KeyPool(["a1", "b2"])
    >>> ring.pick(now=0.0), ring.pick(now=0.0), ring.pick(now=0.0)
    (UseKey(fingerprint='a1'), UseKey(fingerprint='b2'), UseKey(fingerprint='a1'))
    >>> ring.throttled("b2", until=30.0)
    >>> ring.refused("a1", Failure(FailureClass.QUOTA, "insufficient user quota"))
    >>> ring.pick(now=10.0), ring.pick(now=30.0)
    (WaitForKey(until=30.0), UseKey(fingerprint='b2'))
    """

    def __init__(self, fingerprints: Iterable[str]) -> None:
        # The order of this mapping is the order of use: the key used longest ago stands first.
        self._ready_at: dict[str, float] = dict.fromkeys(fingerprints, float("-inf"))
        self._members = tuple(self._ready_at)
        self._retired: dict[str, Failure] = {}

    def pick(self, now: float) -> KeyChoice:
        """Choose the ready key that was used longest ago, and count it as used."""
        for fingerprint, ready_at in self._ready_at.items():
            if ready_at <= now:
                self._ready_at[fingerprint] = self._ready_at.pop(fingerprint)
                return UseKey(fingerprint)
        return WaitForKey(min(self._ready_at.values())) if self._ready_at else NoKeyLeft()

    def throttled(self, fingerprint: str, until: float) -> None:
        """Let a key rest until then; an earlier, longer rest stands."""
        if fingerprint in self._ready_at:
            self._ready_at[fingerprint] = max(self._ready_at[fingerprint], until)

    def refused(self, fingerprint: str, failure: Failure) -> None:
        """Retire a key for the rest of the run; its first reason stands."""
        if self._ready_at.pop(fingerprint, None) is not None:
            self._retired[fingerprint] = failure

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """
        Order the keys to ask for a task with: the one that submitted it, then the rest.

        The next is meant for when one is refused with 401 or 403. A key without
        money can still ask; one that the API does not know comes last.

        Args:
            fingerprint: Of the key that submitted the task, or None where that is not known; it may be
                a key that is no longer in the pool.

        >>> ring = KeyPool(["a1", "b2", "c3"])
        >>> ring.refused("b2", Failure(FailureClass.AUTH, "invalid token"))
        >>> ring.for_task("c3"), ring.for_task("b2")
        (('c3', 'a1', 'b2'), ('a1', 'c3', 'b2'))
        """
        if len(self._members) == 1:
            return self._members
        return tuple(
            sorted(self._members, key=lambda member: (self._is_unknown(member), member != fingerprint))
        )

    def _is_unknown(self, fingerprint: str) -> bool:
        failure = self._retired.get(fingerprint)
        return failure is not None and failure.cls is not FailureClass.QUOTA

    @property
    def retired(self) -> Mapping[str, Failure]:
        """The keys that were refused in this run, and why."""
        return dict(self._retired)

    @property
    def is_pool(self) -> bool:
        """More than one key is left to submit with."""
        return len(self._ready_at) > 1

    @property
    def is_exhausted(self) -> bool:
        """No key is left to submit with."""
        return not self._ready_at
