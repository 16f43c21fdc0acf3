"""
Local files on their way to where models can read them: each content once, durable before any job that needs it.

That is an object store, by digest, or the vendor's asset library: a task, an asset, a review (fact F28).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

from msgspec.structs import replace

from runner.core.model import FILE_KEY, Json
from runner.core.pacing import Pacer
from runner.core.settings import ASSET_LIBRARY, Inputs
from runner.core.units import format_duration
from runner.errors import FileChanged, ObjectStoreError, UploadError
from runner.gateway.library import LibraryAsset
from runner.objects.base import ObjectMissing, ObjectStore
from runner.store.files import Upload, UploadState, file_name, is_ready, object_name
from runner.worker.ports import Clock

Reference = Mapping[str, Json]
"""Of a local file in a request; see `runner.core.model.is_file_reference`."""

AT_ONCE = 16
"""Files that are uploaded, or wait for their review, at the same time; the limit of uploads is within that."""


class UploadStore(Protocol):
    """Where uploads are saved."""

    def save_upload(self, upload: Upload) -> int:
        """Put the state of an upload into the next commit, and return the commit's number."""

    async def durable(self, number: int) -> None:
        """Wait until a commit is on disk."""


class Transfers:
    """The limits of uploads: how many at once, and how many a second."""

    def __init__(self, clock: Clock, *, at_once: int, per_s: float) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(at_once)
        self._pacer = Pacer(per_s)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until an upload may begin, and count it until it ends."""
        async with self._slots:
            while (wait_s := self._pacer.opens_at - self._clock.now()) > 0:
                await self._clock.sleep(wait_s)
            self._pacer.record_sent(self._clock.now())
            yield


ReadFile = Callable[[Reference], bytes]
"""Reads the file of a reference; raises `FileChanged` if it is not what was checked."""

Save = Callable[[Upload], Awaitable[None]]
"""Makes the state of an upload durable."""


class Target(Protocol):
    """Where files are uploaded to."""

    name: str

    async def upload(self, reference: Reference, known: Upload, save: Save) -> Upload:
        """
        Bring a file from a known state to `READY` or `REFUSED`, and save each state that it reaches.

        Raises:
            FileChanged: It is not what was checked.
            RunnerError: The target can't be used.
        """

    def address(self, upload: Upload, seconds: float) -> str:
        """Return an address of a file that is ready, which is valid for at least that long. It may be a secret."""


class InputUploader:
    """
    Uploads files to one target.

    Args:
        known: What earlier processes did, by digest.

    Attributes:
        done: Files that are ready or refused, by digest.
        changed: Files that can't be uploaded any more, by digest.
    """

    def __init__(self, target: Target, store: UploadStore, clock: Clock, known: Mapping[str, Upload]) -> None:
        self._target = target
        self._store = store
        self._known = known
        self._active: dict[str, asyncio.Future[None]] = {}
        self.done: dict[str, Upload] = {
            digest: upload for digest, upload in known.items() if is_ready(upload, clock.wall())
        }
        self.changed: dict[str, FileChanged] = {}

    async def upload_all(self, references: Iterable[Reference]) -> None:
        """
        Upload files, each content once, whether it appears once or is asked for at the same time.

        Raises:
            RunnerError: The target can't be used.
        """
        left = iter({reference["sha256"]: reference for reference in references}.values())

        async def work() -> None:
            for reference in left:
                await self._upload_once(reference)

        workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def needs(self, reference: Reference) -> bool:
        """Return whether nothing is known yet of how the upload of a file ends."""
        return reference["sha256"] not in self.done and reference["sha256"] not in self.changed

    async def _upload_once(self, reference: Reference) -> None:
        digest = reference["sha256"]
        while self.needs(reference):
            active = self._active.get(digest)
            if active is not None:
                await active
                continue
            self._active[digest] = asyncio.get_running_loop().create_future()
            try:
                await self._upload(reference)
            finally:
                self._active.pop(digest).set_result(None)

    async def _upload(self, reference: Reference) -> None:
        digest = reference["sha256"]
        started = Upload(digest, self._target.name, UploadState.STARTED)
        try:
            self.done[digest] = await self._target.upload(
                reference, self._known.get(digest, started), self._save
            )
        except FileChanged as error:
            self.changed[digest] = error

    async def _save(self, upload: Upload) -> None:
        await self._store.durable(self._store.save_upload(upload))


MAX_PRESIGNED_S = 7 * 86400.0
"""The longest time that S3 allows."""


class ObjectTarget:
    """
    An object store, in which a file's name is its digest: an object that is there is not uploaded again.

    Args:
        read: Reads a file; it blocks.
    """

    def __init__(
        self, objects: ObjectStore, inputs: Inputs, transfers: Transfers, clock: Clock, read: ReadFile
    ) -> None:
        self._objects = objects
        self._inputs = inputs
        self._transfers = transfers
        self._clock = clock
        self._read = read
        self.name = inputs.upload
        bucket = urlsplit(inputs.upload)
        folder = "" if bucket.scheme == "file" else bucket.path.strip("/")
        self._prefix = f"{folder}/" if folder else ""

    async def upload(self, reference: Reference, known: Upload, save: Save) -> Upload:
        """Upload a file, unless the store has it."""
        name = known.address or object_name(reference[FILE_KEY], known.digest)
        async with self._transfers.slot():
            await asyncio.to_thread(self._put_if_missing, reference, name)
            valid_until = self._clock.wall() + self._inputs.expires_s
            upload = replace(known, state=UploadState.READY, address=name, expires_at=valid_until)
            await save(upload)
        return upload

    def _put_if_missing(self, reference: Reference, name: str) -> None:
        # Whoever may not list a bucket is refused, not told that an object is missing; then writing shows what is wrong.
        with suppress(ObjectMissing, ObjectStoreError):
            if self._objects.head(name).size == reference["bytes"]:
                return
        self._objects.put(name, self._read(reference), content_type=reference["media_type"])

    def address(self, upload: Upload, seconds: float) -> str:
        """Return the public address, or one that is presigned for as long as the manifest says, or longer if needed."""
        if self._inputs.public_url is not None:
            return self._inputs.public_url + self._prefix + upload.address
        return self._objects.presign(
            upload.address, min(max(self._inputs.expires_s, seconds), MAX_PRESIGNED_S)
        )


MISSES = 5
"""How often a list may lack an asset before its file is uploaded again."""


class Library(Protocol):
    """The asset library; see `runner.gateway.library`."""

    async def upload(self, name: str, content: bytes, media_type: str) -> str:
        """Upload a file, and return the id of its task."""

    async def asset_id(self, task_id: str) -> str | None:
        """Return the id of the asset that a task made; "" if there is none yet, None if there is no such task."""

    async def find(self, **fields: str) -> LibraryAsset | None:
        """Return the asset with this ``name`` or ``asset_id``, or None."""


class LibraryTarget:
    """
    The asset library. A file that it has under its name and digest is not uploaded again.

    Args:
        interval_s: Between two polls of an upload.
        timeout_s: How long a file may take until it is approved or refused.
        read: Reads a file; it blocks.
    """

    name = ASSET_LIBRARY

    def __init__(
        self,
        library: Library,
        transfers: Transfers,
        clock: Clock,
        read: ReadFile,
        *,
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._library = library
        self._transfers = transfers
        self._clock = clock
        self._read = read
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._missed: Counter[str] = Counter()

    async def upload(self, reference: Reference, known: Upload, save: Save) -> Upload:
        """Upload a file unless that was done, and wait until it is approved or refused."""
        upload, until = known, self._clock.now() + self._timeout_s
        while True:
            before = upload
            if upload.state is UploadState.STARTED:
                upload = await self._send(reference, upload)
            elif upload.state is UploadState.PROCESSING:
                upload = await self._find_asset(upload)
            else:
                upload = await self._review(upload)
            if upload != before:
                await save(upload)
            if upload.state in (UploadState.READY, UploadState.REFUSED):
                return upload
            if upload == before:
                await self._pause(reference, until)

    async def _find_asset(self, upload: Upload) -> Upload:
        asset_id = await self._library.asset_id(upload.address)
        if asset_id is None:
            # Another account's task, or one of a library that lost it.
            return _restarted(upload)
        return (
            replace(upload, state=UploadState.REVIEW, address=f"asset://{asset_id}") if asset_id else upload
        )

    async def _review(self, upload: Upload) -> Upload:
        address = upload.address.split(": ")[0]
        found = await self._library.find(asset_id=address.removeprefix("asset://"))
        if found is None:
            self._missed[upload.digest] += 1
            return _restarted(upload) if self._missed[upload.digest] == MISSES else upload
        if found.is_approved is None:
            return upload
        if found.is_approved:
            return replace(upload, state=UploadState.READY, address=address)
        reason = f": {found.reason}" if found.reason else ""
        return replace(upload, state=UploadState.REFUSED, address=f"{address}{reason}")

    async def _send(self, reference: Reference, upload: Upload) -> Upload:
        name = file_name(reference[FILE_KEY], upload.digest)
        async with self._transfers.slot():
            if (found := await self._library.find(name=name)) is not None:
                return replace(upload, state=UploadState.REVIEW, address=f"asset://{found.asset_id}")
            content = await asyncio.to_thread(self._read, reference)
            task_id = await self._library.upload(name, content, reference["media_type"])
        return replace(upload, state=UploadState.PROCESSING, address=task_id)

    async def _pause(self, reference: Reference, until: float) -> None:
        if self._clock.now() >= until:
            raise UploadError(
                f"the asset library has not decided on {reference[FILE_KEY]} for {format_duration(self._timeout_s)}",
                hint="look at the library on the vendor's page, then resume the run",
            )
        await self._clock.sleep(self._interval_s)

    def address(self, upload: Upload, seconds: float) -> str:
        """Return ``asset://ID``, which stays."""
        return upload.address


def _restarted(upload: Upload) -> Upload:
    return Upload(upload.digest, upload.target, UploadState.STARTED)
