"""The keys of a run, in a pool."""

from __future__ import annotations

from runner.core.key_pool import KeyPool
from runner.gateway.credentials import KeySet


class PooledKeys:
    """The keys by their fingerprints, and their pool."""

    def __init__(self, keys: KeySet) -> None:
        self._secrets = {key.fingerprint: key.secret for key in keys.keys}
        self.pool = KeyPool(self._secrets)
        self.fingerprints = tuple(self._secrets)

    def secret(self, fingerprint: str) -> str:
        """Return the key itself."""
        return self._secrets[fingerprint]

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """Order the keys to query a task with: the one that submitted it first."""
        return self.pool.for_task(fingerprint)
