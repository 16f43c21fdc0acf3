"""What a step needs of the rooms around it, and no more."""

from __future__ import annotations

from typing import Protocol

from runner.core.model import Asset, AssetKind, Attempt, Job, Json
from runner.core.outcomes import PollOutcome, SubmitOutcome


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> float:
        """Read the monotonic clock, in seconds."""

    def wall(self) -> float:
        """Read the wall clock, in seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Api(Protocol):
    """The gateway. It never raises for what goes wrong on the way: that is an outcome."""

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        """POST a job's request, once."""

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        """Ask for a task."""


class Keys(Protocol):
    """Keys by their fingerprints."""

    def secret(self, fingerprint: str) -> str:
        """Look a key up."""

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """Name the keys to ask for a task with, its own first."""


class JobStore(Protocol):
    """The store."""

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """Put a job as it stands into the next commit, and return its number."""

    async def durable(self, number: int) -> None:
        """Wait until a commit is on disk."""

    def save_part(self, job: Job, kind: AssetKind, facts: Json) -> None:
        """Keep what is known of an unfinished download."""
