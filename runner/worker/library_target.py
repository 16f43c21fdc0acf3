"""Uploads to the vendor's asset library: a task, an asset, a review (fact F28)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from msgspec.structs import replace

from runner.core.model import FILE_KEY
from runner.core.settings import ASSET_LIBRARY
from runner.core.units import format_duration
from runner.core.uploads import Upload, UploadState, file_name
from runner.errors import UploadError
from runner.worker.ports import Clock
from runner.worker.uploads import ReadFile, Reference, Save, Transfers

MISSES = 5
"""How often a list may lack an asset before its file is uploaded again."""


class FoundAsset(Protocol):
    """An asset; ``is_approved`` is None while it is under review."""

    @property
    def asset_id(self) -> str: ...

    @property
    def is_approved(self) -> bool | None: ...

    @property
    def reason(self) -> str: ...


class Library(Protocol):
    """The asset library; see `runner.gateway.library`."""

    async def upload(self, name: str, content: bytes, media_type: str) -> str:
        """Upload a file, and return the id of its task."""

    async def asset_id(self, task_id: str) -> str | None:
        """Return the id of the asset that a task made; "" if there is none yet, None if there is no such task."""

    async def find(self, **fields: str) -> FoundAsset | None:
        """Return the asset with this ``name`` or ``asset_id``, or None."""


class LibraryTarget:
    """
    The asset library. A file that it has under its name and digest is not uploaded again.

    Args:
        interval_s: Between two looks at an upload.
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
