"""What the steps of a job need from the outside, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from runner.assets.request import AssetRequest, Fetched, NotFetched, PartMetadata
from runner.core.model import Asset, AssetKind, Attempt, Job, Json
from runner.core.outcomes import PollOutcome, SubmitOutcome


class Clock(Protocol):
    """The time."""

    def now(self) -> float:
        """Read the monotonic clock, in seconds."""

    def wall(self) -> float:
        """Read the wall clock, in seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Api(Protocol):
    """The gateway. A network error is an outcome, never an exception."""

    async def submit(self, body: bytes, key: str) -> SubmitOutcome:
        """POST a job's request, once."""

    async def poll(self, task_id: str, key: str) -> PollOutcome:
        """Query a task."""

    async def poll_afresh(self, task_id: str, key: str) -> PollOutcome:
        """Query a task on a connection that nothing else used."""


class Keys(Protocol):
    """API keys by their fingerprints."""

    def secret(self, fingerprint: str) -> str:
        """Return the key itself."""

    def for_task(self, fingerprint: str | None) -> tuple[str, ...]:
        """Order the keys to query a task with: the one that submitted it first."""


class JobStore(Protocol):
    """Where jobs are saved."""

    def save(self, job: Job, attempt: Attempt | None = None, assets: list[Asset] | None = None) -> int:
        """Put the current state of a job into the next commit, and return the commit's number."""

    async def durable(self, number: int) -> None:
        """Wait until a commit is on disk."""

    def task_owner(self, task_id: str) -> str | None:
        """Return the job that has, or had, a task; None if no job of the run has."""

    def save_answer(self, job: Job, answer: str) -> None:
        """Keep an answer about a job that was not understood, with the job's attempt."""

    def save_usage(self, job: Job, usage: Mapping[str, Json]) -> None:
        """Keep what the task of the job's attempt consumed."""


class SubmissionStore(JobStore, Protocol):
    """Where jobs are saved, with what must hold before anything is paid for."""

    def require_in_place(self, commit: int) -> None:
        """Check that the run directory is still at its path, once for all intents of a commit."""


class DeliveryStore(JobStore, Protocol):
    """Where jobs are saved, with what a delivery reads and keeps."""

    def request_text(self, job: Job) -> str:
        """Read the job's request as it is stored."""

    def load_parts(self, job: Job) -> Mapping[str, Json]:
        """Read what an earlier process saved about unfinished downloads, by kind of asset."""

    def load_assets(self, job: Job) -> tuple[Asset, ...]:
        """Read the job's assets."""

    def save_part(self, job: Job, kind: AssetKind, facts: Json) -> None:
        """Save what is known of an unfinished download."""

    def save_assets(self, job: Job, assets: Sequence[Asset]) -> None:
        """Save what the job has of its assets before its end."""


class Downloader(Protocol):
    """Downloads to part files; see `assets.fetch`."""

    async def fetch(
        self, request: AssetRequest, save_metadata: Callable[[PartMetadata], None]
    ) -> Fetched | NotFetched:
        """Download an asset to its part file, until it is complete and verified."""


class AssetPublisher(Protocol):
    """Durable final names; see `assets.publish`."""

    async def publish(self, part: str, final: str) -> None:
        """Make a file durable under its final name."""


class AssetUploader(Protocol):
    """Copies of assets in an object store; see `assets.publish`."""

    async def upload(self, path: str, asset: Asset) -> Asset:
        """Upload a file, and return its asset with its URL once it is there."""

    async def has(self, asset: Asset) -> bool:
        """Return whether an asset that was uploaded is still there."""
