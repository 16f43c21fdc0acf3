"""
A proxy that duplicates, swaps, delays and adds answers on kept connections: every video belongs to its job.

``HOSTILE_S=3600 pytest tests/acceptance/test_hostile_connections.py`` runs it for an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.acceptance.simulator_process import (
    KEY,
    SimulatorProcess,
    results_by_id,
    run_simulator,
    runner,
    write_fast_manifest,
)

SECONDS = float(os.environ.get("HOSTILE_S", "5"))
JOBS = 50
REFUSALS = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}",
    b'HTTP/1.1 503 No\r\nContent-Length: 30\r\n\r\n{"code": "get_channel_failed"} ',
)


class HostileProxy:
    """Passes requests on, each on a connection of its own, and answers badly now and then."""

    def __init__(self, upstream: str, chance: random.Random) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "", parts.port or 0
        self._chance = chance
        self._answers: dict[str, list[bytes]] = {"POST": [], "GET": []}
        self._handlers: set[asyncio.Task[None]] = set()
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        if self._handlers:
            # The client has ended, so every connection is at its end.
            await asyncio.wait(self._handlers, timeout=10)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                request = head + await reader.readexactly(int(length[1]) if length else 0)
                await self._answer(writer, head.split(b" ")[0].decode(), await self._ask(request))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _ask(self, request: bytes) -> bytes:
        """Return the gateway's own answer, for a connection that is kept."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", answer, count=1)

    async def _answer(self, writer: asyncio.StreamWriter, method: str, answer: bytes) -> None:
        earlier = self._answers[method]
        old = self._chance.choice(earlier) if earlier else answer
        earlier.append(answer)
        kinds = ["plain"] * 30 + [
            "twice",
            "late",
            "stray",
            "garbage",
            "refused" if method == "POST" else "swapped",
        ]
        kind = self._chance.choice(kinds)
        if kind == "refused":
            writer.write(self._chance.choice(REFUSALS))
            await self._pause(writer)
        writer.write(old if kind == "swapped" else answer)
        if kind == "late":
            await self._pause(writer)
        if kind != "plain":
            writer.write(
                {"twice": answer, "late": answer, "stray": old, "garbage": b"\x00garbage"}.get(kind, b"")
            )
        await writer.drain()

    async def _pause(self, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        await asyncio.sleep(self._chance.choice([0, 0.001, 0.02]))


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """Start a gateway whose videos differ."""
    with run_simulator(tmp_path, "version: 1\ngenerate_s: 0.2\n") as process:
        yield process


def digest_of(simulator: SimulatorProcess, task_id: str) -> str:
    """Return the digest of a task's video, from the gateway itself."""
    url = f"{simulator.base_url}/v1/videos/{task_id}/content"
    with urlopen(Request(url, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as response:
        return hashlib.sha256(response.read()).hexdigest()


@pytest.mark.timeout(SECONDS + 400)
async def test_every_video_belongs_to_its_job(simulator: SimulatorProcess, tmp_path: Path) -> None:
    """
    Whatever is duplicated, swapped, late or stray, no job has another's video, and none is paid for twice.
    """
    until, seen = time.monotonic() + SECONDS, Counter[str]()
    while time.monotonic() < until:
        seed = random.randrange(10**6)
        name = f"hostile-{seed}"
        jobs = "jobs:\n" + "".join(
            f"  - {{id: j{n}, request: {{model: seedance-1-5-pro-251215, prompt: {name} {n}}}}}\n"
            for n in range(JOBS)
        )
        async with HostileProxy(simulator.base_url, random.Random(seed)) as proxy:
            manifest = write_fast_manifest(tmp_path, name, proxy.base_url, jobs)
            done = await asyncio.to_thread(runner, "run", manifest, "-o", tmp_path / name, timeout_s=300)
        assert done.returncode in (0, 1, 4), (seed, done.stderr)
        tasks = {entry["task_id"]: entry["prompt"] for entry in simulator.ledger}
        paid = Counter(entry["prompt"] for entry in simulator.ledger)
        assert {1} == set(paid.values()), (seed, paid.most_common(3))
        digests = set()
        for n in range(JOBS):
            line = results_by_id(tmp_path / name)[f"j{n}"]
            seen[line["status"]] += 1
            if line["task_id"] is not None:
                assert f"{name} {n}" == tasks[line["task_id"]], seed
            for asset in line["assets"]:
                digests.add(asset["sha256"])
                assert await asyncio.to_thread(digest_of, simulator, line["task_id"]) == asset["sha256"], seed
        assert len(digests) == sum(bool(line["assets"]) for line in results_by_id(tmp_path / name).values())
    assert seen["succeeded"] > JOBS / 2
