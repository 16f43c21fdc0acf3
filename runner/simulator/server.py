"""Run the simulator: the API and two asset origins, each on its own port on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from runner.manifest.price_files import shipped_prices
from runner.schema.catalog import load_catalog
from runner.schema.pricing import Pricer
from runner.simulator.assets import AssetServer
from runner.simulator.gateway import SimulatedGateway
from runner.simulator.scenario import Scenario
from runner.simulator.scenario_reader import load_scenario
from runner.simulator.state import SimulatorState
from runner.simulator.submission_ledger import Ledger

_MAX_BODY_BYTES = 128 * 1024**2
"""The gateway's own limit (fact F27)."""
_SHUTDOWN_TIMEOUT_S = 0.2

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Simulator:
    """
    A simulated gateway on real sockets.

    Use ``async with Simulator(scenario) as simulator``, or `start` and `stop`.

    Attributes:
        base_url: Empty until the simulator is started.
        ledger: What was accepted, and counts of all requests. It can be read after `stop`, too.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        ledger_path: Path | None = None,
        pricer: Pricer | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Create a simulator; nothing happens before `start`.

        Args:
            scenario: None for the shipped one named ``demo``.
            ledger_path: A file of JSON lines that accepted submissions are appended to. A simulator that is
                started again with the same file knows its tasks.
            pricer: Says what it charges; None for the prices that come with the program.
            port: 0 for any free port. The asset origins always use free ports.
            clock: Seconds that never decrease.
        """
        self.ledger = Ledger()
        self.base_url = ""
        self._scenario = scenario or load_scenario("demo")
        self._ledger_path = ledger_path
        self._pricer = pricer or Pricer([shipped_prices()], load_catalog())
        self._host = host
        self._port = port
        self._clock = clock
        self._runners: list[web.ServerRunner] = []

    async def start(self) -> str:
        """
        Start to listen, and return the base URL, such as ``http://127.0.0.1:40123``.

        Raises:
            OSError: The port is in use, or the ledger's file can't be written.
            UsageError: The ledger's file is not a ledger.
        """
        if self._ledger_path:
            await self.ledger.open(self._ledger_path)
        state = SimulatorState(self._scenario, self.ledger, self._clock, self._pricer)
        gateway, cdn, other = SimulatedGateway(state), AssetServer(state), AssetServer(state)
        try:
            gateway.other_origin = cdn.other_origin = await self._listen(other.handle, 0)
            gateway.asset_origin = await self._listen(cdn.handle, 0)
            gateway.origin = await self._listen(gateway.handle, self._port)
        except BaseException:
            await self.stop()
            raise
        self.base_url = gateway.origin
        return self.base_url

    async def stop(self) -> None:
        """Stop at once, and cut off answers that are being sent."""
        while self._runners:
            await self._runners.pop().cleanup()
        await self.ledger.close()

    async def _listen(self, handle: _Handler, port: int) -> str:
        server = web.Server(
            handle, request_factory=_large_request, handler_cancellation=True, access_log=None
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self._host, port, backlog=1024).start()
        bound: int = runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{bound}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def serve(
    scenario: Scenario | None,
    *,
    port: int,
    ledger_path: Path | None,
    pricer: Pricer | None = None,
    ready: Callable[[str], None],
) -> None:
    """
    Run a simulator until this is canceled.

    Args:
        pricer: As for `Simulator`.
        ready: Is called with the base URL once it can be used.
    """
    simulator = Simulator(scenario, port=port, ledger_path=ledger_path, pricer=pricer)
    try:
        ready(await simulator.start())
        await asyncio.Event().wait()
    finally:
        await simulator.stop()


def _large_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY_BYTES)
