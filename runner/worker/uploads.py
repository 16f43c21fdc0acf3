"""Local files on their way to where models can read them: each content once, durable before any job that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from runner.core.model import Json
from runner.core.pacing import Pacer
from runner.core.uploads import Upload, UploadState, is_ready
from runner.errors import FileChanged
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
        """Return an address of a file that is ready, which holds at least so long. It may be a secret."""


class Uploader:
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
