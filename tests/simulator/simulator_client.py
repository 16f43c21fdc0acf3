"""A simulator on real sockets, a client without redirects or retries, and a clock that tests advance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from runner.simulator.scenario_reader import load_scenario
from runner.simulator.server import Simulator

KEY = {"Authorization": "Bearer sk-sim-key"}
SEEDANCE = {"model": "seedance-1-5-pro-251215", "prompt": "A kitten", "size": "480p", "seconds": "4"}


class ManualClock:
    """A monotonic clock in seconds that tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Response:
    """A response, its body read."""

    status: int
    headers: Any
    body: bytes
    json: Any


@dataclass
class SimulatorClient:
    """A running simulator, an HTTP session, and the simulator's clock."""

    simulator: Simulator
    session: aiohttp.ClientSession
    clock: ManualClock

    async def request(self, method: str, url: str, **options: Any) -> Response:
        """Send one request, without following redirects."""
        target = url if url.startswith("http") else self.simulator.base_url + url
        options.setdefault("headers", KEY)
        async with self.session.request(method, target, allow_redirects=False, **options) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return Response(
                response.status, response.headers, body, await response.json() if is_json else None
            )

    async def submit(self, request: Any = SEEDANCE, **options: Any) -> Response:
        """POST a request."""
        return await self.request("POST", "/v1/videos", json=request, **options)

    async def accepted(self, request: Any = SEEDANCE) -> str:
        """POST a request that must be accepted, and return its task id from the ledger."""
        assert (await self.submit(request)).status == 200
        return self.simulator.ledger.accepted[-1].task_id

    async def poll(self, task_id: str) -> Response:
        """Query a task."""
        return await self.request("GET", f"/v1/videos/{task_id}")

    async def fetch(self, url: str, **headers: str) -> Response:
        """GET an asset, without the key."""
        return await self.request("GET", url, headers=headers)

    async def video_url(self, request: Any = SEEDANCE) -> str:
        """Have a video made, and return its URL."""
        task_id = await self.accepted(request)
        self.clock.now += 100
        return str((await self.poll(task_id)).json["video_url"])


@asynccontextmanager
async def start_simulator(text: str = "", **options: Any) -> AsyncIterator[SimulatorClient]:
    """Start a simulator of a scenario, given as YAML without its version; by default videos take 10 s."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.yaml"
        path.write_text(f"version: 1\ngenerate_s: 10\n{text}", encoding="utf-8")
        scenario = load_scenario(path)
    clock = ManualClock()
    simulator = Simulator(scenario, clock=clock, **options)
    async with simulator, aiohttp.ClientSession(auto_decompress=False) as session:
        # As in aiohttp's own test client: the session would repeat a GET when a connection breaks.
        session._retry_connection = False
        yield SimulatorClient(simulator, session, clock)
