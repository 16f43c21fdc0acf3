"""
Bring the assets of one succeeded task to disk: whole, verified, durable, under their final names.

Every way to an asset is tried (see `core.delivery`) before the job is left as
`undelivered`; that state keeps the task id, so a later run tries them all again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runner import jsontext
from runner.assets.mismatch import mismatches
from runner.assets.publish import is_complete
from runner.assets.request import AssetRequest, Fetched, NotFetched, PartMetadata, part_path
from runner.core.asset_urls import NextStep, UrlSearch
from runner.core.filenames import asset_path
from runner.core.lifecycle import Event
from runner.core.model import Asset, AssetKind, Failure, FailureClass, Job, Json
from runner.core.outcomes import Polled, RemoteStatus, RemoteTask, Transient
from runner.core.retry import retry_wait_s
from runner.core.settings import RetryPolicy
from runner.media import MediaInfo
from runner.worker.poll import query_task
from runner.worker.ports import Api, Clock, JobStore, Keys

_ASKED = ("seconds", "size", "ratio", "return_last_frame")
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "video/mp4": ".mp4", "video/quicktime": ".mov"}


class Downloader(Protocol):
    """Downloads; see `assets.fetch`."""

    async def fetch(
        self, request: AssetRequest, save_metadata: Callable[[PartMetadata], None]
    ) -> Fetched | NotFetched:
        """Bring an asset whole to its part file."""


class AssetPublisher(Protocol):
    """Durable final names; see `assets.publish`."""

    async def publish(self, part: str, final: str) -> None:
        """Make a file durable under its final name."""


class DeliveryStore(JobStore, Protocol):
    """The store, with what a delivery reads from it."""

    def request_text(self, job: Job) -> str:
        """Read the job's request as it is stored."""

    def load_parts(self, job: Job) -> Mapping[str, Json]:
        """Read what an earlier process remembered of unfinished downloads, by kind."""

    def load_assets(self, job: Job) -> tuple[Asset, ...]:
        """Read the assets that the store has for the job."""


class Delivery(Struct, frozen=True):
    """
    All that deliveries share.

    Attributes:
        content_url: The gateway's own route for a task's video.
        sharded: Whether assets are spread over 256 folders.
    """

    api: Api
    keys: Keys
    store: DeliveryStore
    clock: Clock
    fetcher: Downloader
    publisher: AssetPublisher
    run_dir: Path
    retry: RetryPolicy
    draw: Callable[[], float]
    content_url: Callable[[str], str]
    sharded: bool = False

    async def deliver(self, job: Job, task: RemoteTask | None) -> None:
        """
        Fetch all assets of a job and save how that ended.

        Args:
            task: The answer that showed its success; None where a later run goes on, and asks again.

        Raises:
            DiskFull: There is no room; the job stays `downloading`.
            RunnerError: The store can't be written.
        """
        began = self.clock.now()
        request = (
            job.delivery_hints
            if job.delivery_hints is not None
            else delivery_hints(self.store.request_text(job))
        )
        seen = _LatestTask(self, job, task)
        found: list[Asset] = []
        failure = await self._video(job, request, seen, found)
        if failure is None and request.get("return_last_frame") is True:
            failure = await self._last_frame(job, seen, found)
        if failure is not None:
            job.transition(Event.NOT_DELIVERED)
        else:
            job.transition(Event.DELIVERED)
            job.download_s = self.clock.now() - began
        job.error = failure
        job.finished_at = self.clock.wall()
        self.store.save(job, assets=found)

    def progress(self, job: Job) -> tuple[int, int | None]:
        """Say how many bytes of a job's video are on disk, and of how many; None where that is not known yet."""
        name = asset_path(job.job_id, AssetKind.VIDEO, ".mp4", sharded=self.sharded)
        try:
            size = os.stat(part_path(self._placed(name))).st_size
        except OSError:
            return 0, None
        return size, self.store.load_parts(job).get(AssetKind.VIDEO.value, {}).get("total_bytes")

    async def _video(
        self, job: Job, request: Mapping[str, Json], seen: _LatestTask, found: list[Asset]
    ) -> Failure | None:
        route = None if job.task_id is None else self.content_url(job.task_id)
        result = await self._asset(job, AssetKind.VIDEO, UrlSearch(route), seen)
        if isinstance(result, Failure):
            return result
        info = MediaInfo(result.content_type, result.width, result.height, result.duration_s)
        for sentence in mismatches(request, info):
            job.warn(sentence)
        found.append(result)
        return None

    async def _last_frame(self, job: Job, seen: _LatestTask, found: list[Asset]) -> Failure | None:
        result = await self._asset(job, AssetKind.LAST_FRAME, UrlSearch(), seen)
        if isinstance(result, Asset):
            found.append(result)
            return None
        if await seen.urls(AssetKind.LAST_FRAME):
            return result
        # The stock gateway does not pass it on (fact F74), so its absence is no failure.
        job.warn("the last frame was requested, and the API named none")
        return None

    async def _asset(
        self, job: Job, kind: AssetKind, search: UrlSearch, seen: _LatestTask
    ) -> Asset | Failure:
        if seen.is_taken_up:
            kept = next((asset for asset in self.store.load_assets(job) if asset.kind is kind), None)
            if kept is not None and await asyncio.to_thread(is_complete, self._placed(kept.path), kept):
                return kept
        search.offer(await seen.urls(kind))
        failure = seen.failure or Failure(
            FailureClass.DOWNLOAD_FAILED,
            f"the task succeeded, and the API named no address for its {_label(kind)}",
        )
        while (move := search.next_step()) is not NextStep.GIVE_UP:
            if isinstance(move, NextStep):
                await seen.ask_again()
                search.offer(await seen.urls(kind))
                continue
            result = await self._fetch(job, kind, move, seen)
            if isinstance(result, Asset):
                return result
            # What came of it is on disk, and the next address may well give the same file.
            seen.may_have_parts = True
            failure = result
        return failure

    async def _fetch(self, job: Job, kind: AssetKind, url: str, seen: _LatestTask) -> Asset | Failure:
        default = ".mp4" if kind is AssetKind.VIDEO else ".png"
        name = asset_path(job.job_id, kind, default, sharded=self.sharded)
        known = self.store.load_parts(job).get(kind.value) if seen.may_have_parts else None
        request = AssetRequest(
            url=url,
            path=self._placed(name),
            kind=kind,
            key=self._key(job),
            metadata=None if known is None else PartMetadata(**known),
        )
        result = await self.fetcher.fetch(request, lambda metadata: self._remember(job, kind, metadata))
        if isinstance(result, NotFetched):
            return result.failure
        suffix = _SUFFIXES.get(result.info.media_type, default)
        if suffix != default:
            name = name.removesuffix(default) + suffix
        await self.publisher.publish(result.part_path, self._placed(name))
        return result.to_asset(kind, name)

    def _placed(self, name: str) -> str:
        return f"{self.run_dir}/{name}"

    def _key(self, job: Job) -> str | None:
        fingerprints = self.keys.for_task(job.key)
        return self.keys.secret(fingerprints[0]) if fingerprints else None

    def _remember(self, job: Job, kind: AssetKind, metadata: PartMetadata) -> None:
        stored = {"total_bytes": metadata.total_bytes, "validator": metadata.validator}
        self.store.save_part(job, kind, stored)


def delivery_hints(request_text: str) -> Mapping[str, Json]:
    """Pick from a request what its delivery must know; requests that ask for the same share one mapping."""
    request = jsontext.loads(request_text)
    return _shared(jsontext.dumps({name: request[name] for name in _ASKED if name in request}))


@lru_cache(maxsize=1024)
def _shared(text: bytes) -> Mapping[str, Json]:
    asked: Mapping[str, Json] = jsontext.loads(text)
    return asked


class _LatestTask:
    """
    The newest answer that shows a job's task, asked for when it is needed.

    Attributes:
        is_taken_up: Whether an earlier process may have fetched something of the job already.
        may_have_parts: Whether that or an earlier address may have left an unfinished download.
    """

    def __init__(self, delivery: Delivery, job: Job, task: RemoteTask | None) -> None:
        self._delivery = delivery
        self._job = job
        self._task = task
        self.is_taken_up = self.may_have_parts = task is None
        self.failure: Failure | None = None

    async def urls(self, kind: AssetKind) -> tuple[str, ...]:
        """Name the addresses that the answer gives for an asset."""
        if self._task is None:
            await self.ask_again()
        if self._task is None:
            return ()
        return self._task.video_urls if kind is AssetKind.VIDEO else self._task.last_frame_urls

    async def ask_again(self) -> None:
        """Ask for the task until it is shown, or the tries are used up."""
        delivery = self._delivery
        for attempt in range(1, delivery.retry.attempts + 1):
            outcome = await query_task(self._job, api=delivery.api, keys=delivery.keys)
            self._job.polls += 1
            if isinstance(outcome, Polled):
                self._take(outcome.task)
                return
            self.failure = Failure(
                FailureClass.DOWNLOAD_FAILED, f"no fresh address: {outcome.failure.message}"
            )
            if not isinstance(outcome, Transient):
                return
            wait_s = retry_wait_s(
                delivery.retry,
                attempt=attempt,
                retry_after_s=outcome.retry_after_s,
                draw=delivery.draw(),
            )
            if wait_s is None:
                return
            await delivery.clock.sleep(wait_s)

    def _take(self, task: RemoteTask) -> None:
        if task.status is RemoteStatus.SUCCEEDED:
            self._task, self.failure = task, None
        else:
            self.failure = Failure(
                FailureClass.DOWNLOAD_FAILED,
                f"the API now calls the task {task.raw_status!r}, and names no address",
            )


def _label(kind: AssetKind) -> str:
    return "video" if kind is AssetKind.VIDEO else "last frame"
