"""Uploads to an object store, by digest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec.structs import replace

from runner.core.model import FILE_KEY
from runner.core.settings import Inputs
from runner.core.uploads import Upload, UploadState, object_name
from runner.errors import ObjectStoreError
from runner.objects.base import ObjectMissing, ObjectStore
from runner.worker.ports import Clock
from runner.worker.uploads import ReadFile, Reference, Save, Transfers

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
