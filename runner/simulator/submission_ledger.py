"""The ledger: every submission that was accepted, and so paid for, and counts of all requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiofiles
import aiofiles.os
from msgspec import Struct, field
from msgspec.structs import asdict

from runner.core.model import Json
from runner.disk import open_own
from runner.errors import UsageError
from runner.jsontext import dumps, loads

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO


class AcceptedSubmission(Struct, frozen=True):
    """
    An accepted submission.

    Attributes:
        digest: The SHA-256 of the request's JSON with sorted keys, in hex.
        label: What the scenario's `job_label` found in the prompt, or None.
        key: A fingerprint of the key that paid.
        at: In seconds since 1970.
        video_options: The fields of the request that describe the video.
        number: Of the job, from 1.
        rule: The number of the scenario's rule for the job, from 0, or None.
        generate_s: How long the video takes.
        charged: What it was charged, as decimal text; None if its price is not known.
    """

    digest: str
    model: str
    prompt: str
    label: str | None
    key: str
    task_id: str
    at: float
    video_options: Mapping[str, Json]
    number: int
    rule: int | None
    generate_s: float
    charged: str | None = None
    currency: str | None = None


class SubmissionLedger(Struct):
    """
    What happened since the start. With a file, `accepted` goes back to when the file was created.

    Attributes:
        requests: By route, such as ``POST /v1/videos``, whatever the answer.
        polls: By task id.
        bytes_served: By asset, such as ``task_x/video.mp4``.
        faults: By kind of request and name, such as ``submit reset``.
        asset_requests_with_key: Requests to the asset origins with an Authorization header, which must not happen.
        stray_posts: POSTs that followed a redirect to another origin, which must not happen.
    """

    accepted: list[AcceptedSubmission] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    polls: Counter[str] = field(default_factory=Counter)
    bytes_served: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    asset_requests_with_key: int = 0
    stray_posts: int = 0
    _file: AsyncFileIO | None = None
    _executor: ThreadPoolExecutor | None = None

    async def open(self, path: Path) -> None:
        """
        Read the entries of a file, and append to it from now on. An incomplete last line is dropped.

        Raises:
            UsageError: The file is not a ledger; it is left unchanged.
            OSError: It can't be opened, or is a link or no regular file.
        """
        await aiofiles.os.makedirs(path.parent, exist_ok=True)
        # One thread keeps the order of the lines.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        # Unbuffered: after a write, the line has reached the operating system.
        self._file = await aiofiles.open(path, "a+b", buffering=0, executor=self._executor, opener=_open_own)
        await self._file.seek(0)
        content = await self._file.readall()
        end = content.rfind(b"\n") + 1
        try:
            self.accepted = [AcceptedSubmission(**loads(line)) for line in content[:end].splitlines()]
        except (ValueError, TypeError):
            await self.close()
            raise UsageError(f"{path} is not a ledger of the simulator", hint="name a new file") from None
        await self._file.truncate(end)

    async def record(self, entry: AcceptedSubmission) -> None:
        """Add an accepted submission. Its line has reached the operating system when this returns."""
        self.accepted.append(entry)
        if self._file:
            # A client that disconnects cancels the caller, but must not undo what is in `accepted`.
            await asyncio.shield(self._file.write(dumps(asdict(entry)) + b"\n"))

    async def close(self) -> None:
        """Close the file."""
        if self._file:
            await self._file.close()
        if self._executor:
            self._executor.shutdown(wait=False)
        self._file = self._executor = None

    def byte_counter(self, asset: str) -> Callable[[int], None]:
        """Return a function that adds to the bytes served of an asset."""

        def add(size: int) -> None:
            self.bytes_served[asset] += size

        return add

    def bill(self) -> dict[str, Decimal]:
        """Add up what was charged, by currency."""
        sums: dict[str, Decimal] = {}
        for entry in self.accepted:
            if entry.charged is not None and entry.currency is not None:
                sums[entry.currency] = sums.get(entry.currency, Decimal(0)) + Decimal(entry.charged)
        return sums

    def as_json(self) -> dict[str, Any]:
        """Return everything, as ``GET /simulator/ledger`` shows it."""
        return {
            name: [asdict(entry) for entry in value] if name == "accepted" else value
            for name, value in asdict(self).items()
            if not name.startswith("_")
        }


def _open_own(path: str, flags: int) -> int:
    return open_own(path, flags)
