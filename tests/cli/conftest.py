"""A folder with a manifest, a gateway for commands that run their own event loop, and an S3 server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runner.simulator.scenario_reader import load_scenario
from runner.simulator.server import Simulator
from tests.objects.s3 import FaultyS3, s3_server

SCENARIO = "version: 1\nkeys: [sk-good-key]\n"


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with the manifest and the scenario of the test's module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(request.module.MANIFEST)
    (tmp_path / "scenario.yaml").write_text(request.module.SCENARIO)
    return tmp_path


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """Serve a gateway that accepts one key, from another thread, since the command runs its own event loop."""
    scenario = tmp_path_factory.mktemp("gateway") / "scenario.yaml"
    scenario.write_text(SCENARIO)
    simulator = Simulator(load_scenario(str(scenario)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(simulator.start(), loop).result(10)
    yield simulator
    asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FaultyS3, Mapping[str, str]]]:
    """An S3 server for all tests of a module."""
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(server: tuple[FaultyS3, Mapping[str, str]], monkeypatch: pytest.MonkeyPatch) -> FaultyS3:
    """The server, without faults, by the variables of the environment."""
    for name, value in server[1].items():
        monkeypatch.setenv(name, value)
    server[0].reset()
    return server[0]
