"""
Bring the assets of one succeeded task to disk: complete, verified, durable, under their final names.

Every address of an asset is tried (see `core.addresses`) before the job becomes `undelivered`;
that state keeps the task id, so a later run tries them all again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runner.assets.publish import is_complete
from runner.assets.request import AssetRequest, Fetched, NotFetched, PartMetadata, mismatches, part_path
from runner.core.addresses import READY_S, NextStep, UrlSearch
from runner.core.filenames import asset_path
from runner.core.lifecycle import Event, advance
from runner.core.model import Asset, AssetKind, Failure, FailureClass, Job, Json
from runner.core.outcomes import Polled, RemoteStatus, RemoteTask, Transient
from runner.core.retry import retry_wait_s
from runner.core.settings import RetryPolicy, Timeouts
from runner.core.units import format_duration
from runner.disk import FileUnwritable
from runner.jsontext import dumps, loads
from runner.media import MediaInfo
from runner.network import Deadline
from runner.worker.poll import query_task
from runner.worker.ports import Api, AssetPublisher, AssetUploader, Clock, DeliveryStore, Downloader, Keys

_HINTS = ("seconds", "size", "ratio", "return_last_frame")
_DEFAULT_SUFFIXES = {AssetKind.VIDEO: ".mp4", AssetKind.LAST_FRAME: ".png"}
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "video/mp4": ".mp4", "video/quicktime": ".mov"}
_LABELS = {AssetKind.VIDEO: "video", AssetKind.LAST_FRAME: "last frame"}


class RetryPauses(Struct):
    """Sleeps until `end`; from then on every sleeper is cancelled, as its download is left to a later run."""

    _sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _sleepers: set[asyncio.Task[object]] = field(default_factory=set)
    _has_ended: bool = False

    async def sleep(self, seconds: float) -> None:
        """
        Wait.

        Raises:
            CancelledError: The run ends.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._has_ended:
            raise asyncio.CancelledError
        self._sleepers.add(task)
        try:
            await self._sleep(seconds)
        finally:
            self._sleepers.discard(task)

    def end(self) -> None:
        """Cancel every sleeper, now and later."""
        self._has_ended = True
        for task in tuple(self._sleepers):
            task.cancel()


class Deliverer(Struct, frozen=True):
    """
    Delivers jobs whose tasks succeeded.

    Attributes:
        retry: How often a query for fresh addresses is tried.
        draw: A random draw from [0, 1).
        content_url: The gateway's own address of a task's video.
        sharded: Whether assets are spread over 256 folders.
        max_download_s: For one asset, with all its addresses, tries and pauses.
        pauses: The pauses between two tries.
        uploader: Uploads each asset before its job counts as succeeded; None to keep them here alone.
        keeps_local: Whether the files stay here after that.
    """

    api: Api
    keys: Keys
    store: DeliveryStore
    clock: Clock
    downloader: Downloader
    publisher: AssetPublisher
    run_dir: Path
    retry: RetryPolicy
    draw: Callable[[], float]
    content_url: Callable[[str], str]
    sharded: bool = False
    max_download_s: float = Timeouts().download_s
    pauses: RetryPauses = field(default_factory=RetryPauses)
    uploader: AssetUploader | None = None
    keeps_local: bool = True

    async def deliver(self, job: Job, task: RemoteTask | None) -> None:
        """
        Fetch all assets of a job and save how that ended.

        Args:
            task: The answer that showed its success; None to query the task first, for a job of an earlier run.

        Raises:
            DiskFull: There is no room; the job stays `downloading`.
            ObjectStoreError: Nothing can be uploaded; the job stays `downloading`, and its file stays here.
            RunnerError: The store can't be written.
        """
        started_at = self.clock.now()
        delivery = _Delivery(self, job, task)
        try:
            failure = await delivery.fetch_all()
        except FileUnwritable as error:
            failure = Failure(FailureClass.DOWNLOAD_FAILED, str(error))
        if failure is not None:
            job.state = advance(job.state, Event.NOT_DELIVERED)
        else:
            job.state = advance(job.state, Event.DELIVERED)
            job.download_s = self.clock.now() - started_at
        job.error = failure
        job.finished_at = self.clock.wall()
        self.store.save(job, assets=delivery.assets)
        if not self.keeps_local and failure is None:
            # Only now: a later process must find each asset here or there.
            await self.store.durable(job.commit)
            self.remove_files(delivery.assets)

    def remove_files(self, assets: Iterable[Asset]) -> None:
        """Delete the files of assets that are elsewhere, too."""
        for asset in assets:
            with suppress(OSError):
                os.unlink(self.full_path(asset.path))

    def progress(self, job: Job) -> tuple[int, int | None]:
        """Return how many bytes of a job's video are on disk, and of how many; None if that is not known yet."""
        try:
            size = os.stat(part_path(self.full_path(self.asset_name(job, AssetKind.VIDEO)))).st_size
        except OSError:
            return 0, None
        return size, self.store.load_parts(job).get(AssetKind.VIDEO.value, {}).get("total_bytes")

    def asset_name(self, job: Job, kind: AssetKind) -> str:
        """Name an asset's file, relative to the run directory."""
        return asset_path(job.job_id, kind, _DEFAULT_SUFFIXES[kind], sharded=self.sharded)

    def full_path(self, name: str) -> str:
        """Return the path of a file of the run directory."""
        return f"{self.run_dir}/{name}"


class _Delivery:
    """
    The delivery of one job.

    Attributes:
        assets: What was delivered so far.
    """

    def __init__(self, deliverer: Deliverer, job: Job, task: RemoteTask | None) -> None:
        self._deliverer = deliverer
        self._job = job
        self._task = task
        self._query_failure: Failure | None = None
        self._is_resumed = task is None
        # An earlier process, or an earlier address, may have left an unfinished download.
        self._may_have_parts = task is None
        self.assets: list[Asset] = []

    async def fetch_all(self) -> Failure | None:
        """Fetch every asset that the request asks for; return why that failed, or None."""
        job, deliverer = self._job, self._deliverer
        hints = job.delivery_hints
        if hints is None:
            hints = delivery_hints(deliverer.store.request_text(job))
        content_url = None if job.task_id is None else deliverer.content_url(job.task_id)
        video = await self._fetch(AssetKind.VIDEO, UrlSearch(content_url))
        if isinstance(video, Failure):
            return video
        info = MediaInfo(video.content_type, video.width, video.height, video.duration_s)
        for sentence in mismatches(hints, info):
            job.warn(sentence)
        self.assets.append(video)
        return await self._fetch_last_frame() if hints.get("return_last_frame") is True else None

    async def _fetch_last_frame(self) -> Failure | None:
        frame = await self._fetch(AssetKind.LAST_FRAME, UrlSearch())
        if isinstance(frame, Asset):
            self.assets.append(frame)
            return None
        if self._task is None or self._task.last_frame_urls:
            return frame
        # The stock gateway does not pass it on (fact F74), so its absence is not a failure.
        self._job.warn("the last frame was requested, and the API named none")
        return None

    async def _fetch(self, kind: AssetKind, search: UrlSearch) -> Asset | Failure:
        """Fetch an asset from the first address that gives it."""
        if self._is_resumed and (asset := await self._complete_asset(kind)) is not None:
            return await self._uploaded(asset)
        deliverer = self._deliverer
        limit_s = deliverer.max_download_s
        try:
            with Deadline(limit_s):
                result = await self._search(kind, search)
        except TimeoutError:
            return Failure(
                FailureClass.DOWNLOAD_FAILED,
                f"the {_LABELS[kind]} was not complete after {format_duration(limit_s)} (timeouts.download)",
            )
        if isinstance(result, Failure):
            return result
        default = _DEFAULT_SUFFIXES[kind]
        name = deliverer.asset_name(self._job, kind)
        name = name.removesuffix(default) + _SUFFIXES.get(result.info.media_type, default)
        await deliverer.publisher.publish(result.part_path, deliverer.full_path(name))
        asset = result.to_asset(kind, name)
        return asset if deliverer.uploader is None else await self._uploaded(asset)

    async def _uploaded(self, asset: Asset) -> Asset:
        """Return an asset of which this machine has the file, or that is uploaded, once it is where it belongs."""
        deliverer = self._deliverer
        if deliverer.uploader is None or asset.url is not None:
            return asset
        # So that a later process uploads the file rather than downloading it again.
        deliverer.store.save_assets(self._job, [*self.assets, asset])
        asset = await deliverer.uploader.upload(deliverer.full_path(asset.path), asset)
        deliverer.store.save_assets(self._job, [*self.assets, asset])
        return asset

    async def _search(self, kind: AssetKind, search: UrlSearch) -> Fetched | Failure:
        """Try all addresses, and all again while they may not be ready yet; return why the first one failed."""
        failure: Failure | None = None
        for attempt in itertools.count(1):
            if self._task is None:
                await self._query_task()
            search.offer(self._urls(kind))
            if failure is None:
                failure = self._query_failure
            may_become_ready = False
            while (step := search.next_step()) is not NextStep.GIVE_UP:
                if isinstance(step, NextStep):
                    await self._query_task()
                    search.offer(self._urls(kind))
                    continue
                result = await self._download(kind, step)
                if isinstance(result, Fetched):
                    return result
                self._may_have_parts = True
                may_become_ready |= result.may_become_ready
                if failure is None:
                    failure = self._reason(kind, result.failure)
            wait_s = self._readiness_wait_s(attempt) if may_become_ready else None
            if wait_s is None:
                break
            await self._deliverer.pauses.sleep(wait_s)
            search.start_again()
        return failure or self._no_address(kind)

    def _reason(self, kind: AssetKind, failure: Failure) -> Failure:
        """Return the reason of the address that was tried first; if the API named none, that comes before it."""
        if self._task is not None and (self._task.video_urls or kind is not AssetKind.VIDEO):
            return failure
        return replace(failure, message=f"{self._no_address(kind).message}; {failure.message}")

    def _no_address(self, kind: AssetKind) -> Failure:
        return Failure(
            FailureClass.DOWNLOAD_FAILED,
            f"the task succeeded, and the API named no address for its {_LABELS[kind]}",
        )

    def _readiness_wait_s(self, attempt: int) -> float | None:
        """Return how long to wait before all addresses are tried again; None if they had time to become ready."""
        deliverer, job = self._deliverer, self._job
        seen_at = (job.submitted_at or 0.0) + (job.generate_s or 0.0)
        if deliverer.clock.wall() - max(seen_at, job.completed_at or 0.0) > READY_S:
            return None
        return retry_wait_s(deliverer.retry, attempt=attempt, draw=deliverer.draw())

    async def _complete_asset(self, kind: AssetKind) -> Asset | None:
        """Return an asset that an earlier process delivered, if it is still complete; without URL if it is only here."""
        deliverer = self._deliverer
        for asset in deliverer.store.load_assets(self._job):
            if asset.kind is not kind:
                continue
            if (
                asset.url is not None
                and deliverer.uploader is not None
                and await deliverer.uploader.has(asset)
            ):
                return asset
            if await asyncio.to_thread(is_complete, deliverer.full_path(asset.path), asset):
                return replace(asset, url=None)
        return None

    async def _download(self, kind: AssetKind, url: str) -> Fetched | NotFetched:
        deliverer, job = self._deliverer, self._job
        part = deliverer.store.load_parts(job).get(kind.value) if self._may_have_parts else None

        def save_metadata(metadata: PartMetadata) -> None:
            validator = metadata.validator
            if request.key and validator and request.key in validator:
                # A gateway that repeats the key in a header must not get it onto the disk.
                validator = None
            values = {"total_bytes": metadata.total_bytes, "validator": validator}
            deliverer.store.save_part(job, kind, values)

        request = AssetRequest(
            url=url,
            path=deliverer.full_path(deliverer.asset_name(job, kind)),
            kind=kind,
            key=self._key(),
            metadata=None if part is None else PartMetadata(**part),
        )
        return await deliverer.downloader.fetch(request, save_metadata)

    def _key(self) -> str | None:
        keys = self._deliverer.keys
        fingerprints = keys.for_task(self._job.key)
        return keys.secret(fingerprints[0]) if fingerprints else None

    def _urls(self, kind: AssetKind) -> tuple[str, ...]:
        """Return the addresses that the newest answer gives for an asset; none without an answer."""
        if self._task is None:
            return ()
        return self._task.video_urls if kind is AssetKind.VIDEO else self._task.last_frame_urls

    async def _query_task(self) -> None:
        """Query the task until it is shown, or the attempts are used up."""
        deliverer = self._deliverer
        for attempt in range(1, deliverer.retry.attempts + 1):
            outcome = await query_task(
                self._job, api=deliverer.api, keys=deliverer.keys, task_owner=deliverer.store.task_owner
            )
            self._job.polls += 1
            if isinstance(outcome, Polled):
                self._record(outcome.task)
                return
            self._query_failure = Failure(
                FailureClass.DOWNLOAD_FAILED, f"no fresh address: {outcome.failure.message}"
            )
            if not isinstance(outcome, Transient):
                return
            wait_s = retry_wait_s(
                deliverer.retry,
                attempt=attempt,
                retry_after_s=outcome.retry_after_s,
                draw=deliverer.draw(),
            )
            if wait_s is None:
                return
            await deliverer.pauses.sleep(wait_s)

    def _record(self, task: RemoteTask) -> None:
        if task.status is RemoteStatus.SUCCEEDED:
            self._task, self._query_failure = task, None
        else:
            self._query_failure = Failure(
                FailureClass.DOWNLOAD_FAILED,
                f"the API now calls the task {task.raw_status!r}, and names no address",
            )


def delivery_hints(request_text: str) -> Mapping[str, Json]:
    """Pick from a request what its delivery must know; equal results are one shared mapping."""
    request = loads(request_text)
    return _shared(dumps({name: request[name] for name in _HINTS if name in request}))


@lru_cache(maxsize=1024)
def _shared(hints: bytes) -> Mapping[str, Json]:
    mapping: Mapping[str, Json] = loads(hints)
    return mapping
