"""How long a connection may be idle before a POST leaves on it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.gateway.raw_server import BODY, KEY, Connection, accepted, run_event_loop, server_and_client


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give tests what sets the clock of the event loop, and of aiohttp's connections, forward by some seconds."""
    monotonic, passed_s = time.monotonic, 0.0

    def pass_time(seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds

    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed_s)
    # Some versions of aiohttp have a name of their own for it; others ask the event loop.
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic(), raising=False)
    return pass_time


@pytest.mark.parametrize(("idle_s", "connections"), [(1.5, 1), (2.5, 2)])
async def test_post_leaves_on_no_connection_that_was_idle_for_long(
    idle_s: float, connections: int, pass_time: Callable[[float], None]
) -> None:
    """
    A server that closes an idle connection just as a POST leaves on it would put a job in doubt, so one that
    was idle for more than 2 s is not used; jobs that follow each other at a job a second share one.
    """

    async def handle(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(accepted("task_1"))

    async with server_and_client(handle) as (server, gateway):
        await gateway.submit(BODY, KEY)
        pass_time(idle_s)
        await run_event_loop()
        await gateway.submit(BODY, KEY)

    assert server.connections == connections
    assert len(server.requests) == 2
