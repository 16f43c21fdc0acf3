"""A job whose task has succeeded, with what its delivery needs in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.assets.request import AssetRequest, Fetched, FetchFailure, NotFetched, PartMetadata, part_path
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, FailureClass, Job
from runner.core.outcomes import Polled, PollOutcome, RemoteStatus, RemoteTask
from runner.core.settings import RetryPolicy
from runner.media import MediaInfo
from runner.worker.deliver import Deliverer, RetryPauses
from tests.engine.answers import UNKNOWN, failure
from tests.engine.fakes import FakeKeys, FakePublisher, FakeStore, job_in_memory
from tests.worker.fakes import FakeClock, FakeQueries

VIDEO = "https://cdn.example/a.mp4"
OTHER_VIDEO = "https://cdn.example/b.mp4"
FRAME = "https://cdn.example/a.png"
ROUTE = "https://api.example/v1/videos/task_1/content"

GONE = NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED, "gone"))


def task(
    *video_urls: str, frames: Sequence[str] = (), status: RemoteStatus = RemoteStatus.SUCCEEDED
) -> Polled:
    """Make an answer that shows the task."""
    return Polled(
        RemoteTask(("task_1",), status, "word", video_urls=video_urls, last_frame_urls=tuple(frames))
    )


@dataclass
class DeliveryStore(FakeStore):
    """A notebook that also knows what earlier processes have left."""

    request: Mapping[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    assets: tuple[Asset, ...] = ()
    saved_assets: list[Asset] = field(default_factory=list)

    def save(self, job: Job, attempt: Any = None, assets: list[Asset] | None = None) -> int:
        self.saved_assets = list(assets or ())
        return super().save(job, attempt, assets)

    def request_text(self, job: Job) -> str:
        return json.dumps(self.request)

    def load_parts(self, job: Job) -> Mapping[str, Any]:
        return self.parts

    def load_assets(self, job: Job) -> tuple[Asset, ...]:
        return self.assets

    def save_part(self, job: Job, kind: AssetKind, facts: Any) -> None:
        self.parts[kind.value] = facts

    def save_assets(self, job: Job, assets: Sequence[Asset]) -> None:
        self.assets = tuple(assets)


@dataclass
class FakeDownloads:
    """
    Downloads, by their addresses.

    Attributes:
        files: What each address gives: the media type of a file, or a failure.
    """

    clock: FakeClock
    files: Mapping[str, str | NotFetched]
    asked: list[AssetRequest] = field(default_factory=list)
    etag: str = '"tag"'

    async def fetch(
        self, request: AssetRequest, save_metadata: Callable[[PartMetadata], None]
    ) -> Fetched | NotFetched:
        self.asked.append(request)
        self.clock.at += 2.0
        save_metadata(PartMetadata(1000, self.etag))
        found = self.files[request.url]
        if isinstance(found, NotFetched):
            return found
        part = Path(part_path(request.path))
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(request.url)
        digest = hashlib.sha256(request.url.encode()).hexdigest()
        return Fetched(str(part), len(request.url), digest, MediaInfo(found, 640, 360, 5.0))


@dataclass
class Setting:
    """A job whose task has succeeded, and all that its delivery needs."""

    run_dir: Path
    files: Mapping[str, str | NotFetched] = field(default_factory=lambda: {VIDEO: "video/mp4"})
    answers: list[PollOutcome] = field(default_factory=lambda: [UNKNOWN])
    request: Mapping[str, Any] = field(default_factory=dict)
    sharded: bool = False
    job: Job = field(
        default_factory=lambda: job_in_memory("a", State.DOWNLOADING, task_id="task_1", key="own")
    )

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.store = DeliveryStore(request=self.request)
        self.downloads = FakeDownloads(self.clock, self.files)
        self.queries = FakeQueries(self.answers)
        self.delivery = Deliverer(
            api=self.queries,
            keys=FakeKeys("other", "own"),
            store=self.store,
            clock=self.clock,
            downloader=self.downloads,
            publisher=FakePublisher(),
            run_dir=self.run_dir,
            retry=RetryPolicy(attempts=3, base_s=2.0, cap_s=60.0),
            draw=lambda: 0.5,
            content_url=lambda task_id: f"https://api.example/v1/videos/{task_id}/content",
            sharded=self.sharded,
            pauses=RetryPauses(self.clock.sleep),
        )

    async def deliver(self, shown: Polled | None) -> Job:
        """Deliver what an answer shows, or what a later run asks for anew, and return the job."""
        await self.delivery.deliver(self.job, None if shown is None else shown.task)
        assert [(self.job.state, None)] == self.store.saved
        return self.job

    @property
    def urls(self) -> list[str]:
        """The addresses that were tried."""
        return [request.url for request in self.downloads.asked]

    def content(self, path: str) -> str:
        """Read a file of the run directory: it holds the address that it came from."""
        return (self.run_dir / path).read_text()

    def keep(self, kind: AssetKind, path: str, content: str) -> None:
        """Let an earlier process have fetched an asset."""
        (self.run_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (self.run_dir / path).write_text("kept")
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.store.assets += (Asset(kind, path, len(content), digest, "video/mp4"),)
