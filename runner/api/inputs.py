"""Local files of requests that are uploaded before anything is submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from itertools import islice
from typing import TYPE_CHECKING

from runner.connector import Proxies
from runner.core.model import FILE_KEY, Json
from runner.core.settings import Inputs, Settings, Timeouts
from runner.core.units import format_count, format_size
from runner.engine.events import Notice
from runner.errors import InputRefused
from runner.gateway.library import LibraryClient
from runner.gateway.urls import gateway_root
from runner.jsontext import dumps, loads
from runner.manifest.file_references import read_checked, render_request, uploads_in
from runner.objects import open_store
from runner.schema.catalog import Catalog, catalog_with
from runner.store.files import Upload, UploadState, read_uploads, requests_with_files
from runner.worker.ports import Clock
from runner.worker.uploads import (
    InputUploader,
    LibraryTarget,
    ObjectTarget,
    Reference,
    Save,
    Target,
    Transfers,
)

if TYPE_CHECKING:
    from runner.api.execute import Work
    from runner.api.job_steps import JobSteps

REVIEW_S = 2.5
"""Between two polls of the asset library, at most (fact F28)."""
_PROBE = "runner-doctor.txt"


class UploadedFiles:
    """
    Local files are uploaded, those for which their field allows it; the others are sent inside the requests.

    Args:
        work: What is to be done, with which store.
        catalog: Has the schemas of the requests.
    """

    def __init__(self, work: Work, inputs: Inputs, target: Target, clock: Clock, catalog: Catalog) -> None:
        self._work = work
        self._inputs = inputs
        self._target = target
        self._catalog = catalog
        self._uploader = InputUploader(
            target, work.store, clock, read_uploads(work.store.reader, target.name)
        )

    async def prepare(self) -> None:
        """Upload the files of all jobs to submit."""
        wanted = {ref["sha256"]: ref for ref in self._references() if self._uploader.needs(ref)}
        if not wanted:
            return
        size = format_size(sum(reference["bytes"] for reference in wanted.values()))
        what = f"{format_count(len(wanted), 'file')} ({size})"
        self._work.observe(Notice("uploads", f"uploading {what} to {self._target.name}"))
        await self._uploader.upload_all(wanted.values())
        self._work.observe(Notice("uploads", f"uploaded {what}"))

    async def body(self, text: str, timeout_s: float) -> bytes:
        """Put the address of each uploaded file into the request."""
        request = loads(text)
        found = list(uploads_in(request, self._inputs, self._catalog))
        # Nearly always all of them are there.
        await self._uploader.upload_all(ref for _, ref in found if self._uploader.needs(ref))
        return await asyncio.to_thread(self._render, request, found, timeout_s)

    def _render(
        self, request: Json, found: list[tuple[tuple[str | int, ...], Reference]], seconds: float
    ) -> bytes:
        addresses = {path: self._address(reference, seconds) for path, reference in found}
        return dumps(render_request(request, addresses))

    def _address(self, reference: Reference, seconds: float) -> str:
        digest = reference["sha256"]
        if digest in self._uploader.changed:
            raise self._uploader.changed[digest]
        upload = self._uploader.done[digest]
        if upload.state is UploadState.REFUSED:
            raise InputRefused(f"the asset library refused {reference[FILE_KEY]} ({upload.address})")
        return self._target.address(upload, seconds)

    def _references(self) -> Iterator[Reference]:
        # With a limit the others may never be needed; one that is, is uploaded before its job.
        work = self._work
        for text in islice(requests_with_files(work.store.reader, work.job_filter), work.options.limit):
            yield from (reference for _, reference in uploads_in(loads(text), self._inputs, self._catalog))


class SimulatedTarget:
    """A target that takes everything, and sends nothing anywhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def upload(self, reference: Reference, known: Upload, save: Save) -> Upload:
        """Check the file."""
        await asyncio.to_thread(read_checked, reference)
        upload = Upload(known.digest, self.name, UploadState.READY)
        await save(upload)
        return upload

    def address(self, upload: Upload, seconds: float) -> str:
        """Return an address that nobody opens."""
        return f"https://example.com/{upload.digest}"


async def open_uploads(
    stack: AsyncExitStack, work: Work, steps: JobSteps, settings: Settings, inputs: Inputs
) -> UploadedFiles:
    """
    Return what makes the bodies of requests whose local files are uploaded.

    Args:
        stack: Closes what is opened.
        settings: Those of this process.

    Raises:
        RunnerError: The object store can't be used as it is configured.
    """
    limits, clock, environ = settings.limits, steps.clock, work.config.environ
    transfers = Transfers(clock, at_once=limits.uploads, per_s=limits.upload_per_s)
    if inputs.is_library:
        root = steps.client.root
        proxy = Proxies.from_environ(environ).for_url(root)
        key = steps.keys.secret(steps.keys.for_task(None)[0])
        client = LibraryClient(root, key, settings.timeouts, sleep=clock.sleep, proxy=proxy)
        target: Target = LibraryTarget(
            await stack.enter_async_context(client),
            transfers,
            clock,
            read_checked,
            interval_s=min(REVIEW_S, settings.poll.interval_s),
            timeout_s=settings.poll.timeout_s,
        )
    elif work.config.origin.is_simulated:
        target = SimulatedTarget(inputs.upload)
    else:
        target = ObjectTarget(open_store(inputs.upload, environ), inputs, transfers, clock, read_checked)
    return UploadedFiles(work, inputs, target, clock, catalog_with(settings.schemas))


def try_inputs(
    inputs: Inputs, base_url: str, key: str, environ: Mapping[str, str], timeouts: Timeouts
) -> None:
    """
    Write a small object and delete it again, or ask the asset library for its groups.

    Raises:
        RunnerError: Files can't be uploaded, or would have no address.
    """
    if inputs.is_library:
        asyncio.run(_ask_library(gateway_root(base_url), key, environ, timeouts))
        return
    store = open_store(inputs.upload, environ)
    store.put(_PROBE, b"runner doctor\n", content_type="text/plain")
    if inputs.public_url is None:
        store.presign(_PROBE, inputs.expires_s)
    store.delete(_PROBE)


async def _ask_library(root: str, key: str, environ: Mapping[str, str], timeouts: Timeouts) -> None:
    proxy = Proxies.from_environ(environ).for_url(root)
    async with LibraryClient(root, key, timeouts, sleep=asyncio.sleep, proxy=proxy) as library:
        await library.groups()
