"""
Which API key is used next.

Keys are known here by their fingerprints only. Tasks belong to the account and not to the key, so any of
the user's keys may poll any of the user's tasks.
"""

from __future__ import annotations

from collections.abc import Iterable

from runner.core.model import Failure, FailureClass


class KeyPool:
    """
    The state of each key, for one run.

    A refused key is retired until the run ends; a throttled one cools down for a while. All times are
    readings of one clock of the caller's choice.

    >>> pool = KeyPool(["a1", "b2"])
    >>> pool.pick(now=0.0), pool.pick(now=0.0), pool.pick(now=0.0)
    ('a1', 'b2', 'a1')
    >>> pool.cool_down("b2", until=30.0)
    >>> pool.retire("a1", Failure(FailureClass.QUOTA, "insufficient user quota"))
    >>> pool.pick(now=10.0), pool.first_ready_at, pool.pick(now=30.0)
    (None, 30.0, 'b2')

    Attributes:
        fingerprints: Of all keys, the refused ones too.
    """

    def __init__(self, fingerprints: Iterable[str]) -> None:
        # In the order of use: the key used longest ago comes first.
        self._ready_at: dict[str, float] = dict.fromkeys(fingerprints, float("-inf"))
        self.fingerprints = tuple(self._ready_at)
        self._retired: dict[str, Failure] = {}

    def pick(self, now: float) -> str | None:
        """Return the ready key that was used longest ago, and mark it as used; None if none is ready."""
        for fingerprint, ready_at in self._ready_at.items():
            if ready_at <= now:
                self._ready_at[fingerprint] = self._ready_at.pop(fingerprint)
                return fingerprint
        return None

    @property
    def first_ready_at(self) -> float | None:
        """When the first key is ready; None if every key was refused, so that nothing more can be submitted."""
        return min(self._ready_at.values(), default=None)

    def cool_down(self, fingerprint: str, until: float) -> None:
        """Do not pick a key before then; a longer cool-down that was set earlier remains."""
        if fingerprint in self._ready_at:
            self._ready_at[fingerprint] = max(self._ready_at[fingerprint], until)

    def retire(self, fingerprint: str, failure: Failure) -> None:
        """Do not pick a key for the rest of the run; the first failure counts."""
        if self._ready_at.pop(fingerprint, None) is not None:
            self._retired[fingerprint] = failure

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """
        Return the keys to poll a task with, in order: the one that submitted it, then the others.

        The next one is for when a key is refused with 401 or 403. A key without credit can still poll; one
        that the API does not know comes last.

        Args:
            fingerprint: Of the key that submitted the task, or None if that is unknown; the key may no longer
                be in the pool.

        >>> pool = KeyPool(["a1", "b2", "c3"])
        >>> pool.retire("b2", Failure(FailureClass.AUTH, "invalid token"))
        >>> pool.for_task("c3"), pool.for_task("b2")
        (('c3', 'a1', 'b2'), ('a1', 'c3', 'b2'))
        """
        if len(self.fingerprints) == 1:
            return self.fingerprints
        return tuple(
            sorted(self.fingerprints, key=lambda member: (self._is_unknown(member), member != fingerprint))
        )

    def _is_unknown(self, fingerprint: str) -> bool:
        failure = self._retired.get(fingerprint)
        return failure is not None and failure.cls is not FailureClass.QUOTA

    @property
    def is_pool(self) -> bool:
        """Whether more than one key is left to submit with."""
        return len(self._ready_at) > 1
