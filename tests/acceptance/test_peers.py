"""
Gateways and mocks that nobody here wrote, with a `/v1/videos` of their own: 12 of 12 videos from each.

They are installed with npm and pip into a temporary folder, so this takes minutes, and is skipped where that is not
possible.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import aiohttp
import pytest
import yaml
from aiohttp import web

from tests.acceptance.raw_gateway import FILM
from tests.acceptance.simulator_process import results_by_id, run_simulator, runner, write_fast_manifest

pytestmark = pytest.mark.extended

JOBS = 12
MANIFEST = """
jobs:
  - id: job-${n}
    repeat: 12
    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}.', seconds: 4, size: 480p}
"""
START_S = 120.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the peers of npm, and return the folder of their programs."""
    folder = tmp_path_factory.mktemp("node")
    # Portkey 1.15 turns every success of the upstream into a 500 ("immutable" headers, with Node 20).
    packages = ["@stoplight/prism-cli", "@portkey-ai/gateway@1.9.8", "@copilotkit/aimock"]
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    installed = subprocess.run(
        ["npm", "install", "--silent", "--prefix", str(folder), *packages], capture_output=True, timeout=600
    )
    if installed.returncode:
        pytest.skip("npm can't install the peers")
    return folder / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def video_url() -> Iterator[str]:
    """Serve a video."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(FILM)))
            self.end_headers()
            self.wfile.write(FILM)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v.mp4"
        server.shutdown()
        thread.join()


def free_port() -> int:
    """Find a port on which no server listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(port: int, *command: str | Path) -> Iterator[str]:
    """Start a server, wait until it answers anything, and return its base URL."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + START_S
            while not _answers(url):
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/v1/models", timeout=5):
            return True
    except HTTPError:
        return True
    except (URLError, OSError):
        return False


def succeeded(folder: Path, base_url: str) -> int:
    """Run twelve jobs against a gateway, and return how many have a video."""
    manifest = write_fast_manifest(folder, "peers", base_url, MANIFEST)
    done = runner("run", manifest, "-o", folder / "out")
    results = results_by_id(folder / "out")
    assert 0 == done.returncode, done.stderr + json.dumps(results["job-1"]["error"])
    return sum(
        line["status"] == "succeeded" and (folder / "out" / line["assets"][0]["path"]).is_file()
        for line in results.values()
    )


def test_prism(node: Path, video_url: str, tmp_path: Path) -> None:
    """A mock of an OpenAPI document: no answer to a query has an id, and a submission's is random."""
    port = free_port()
    text = {"type": "string"}
    create = {"id": {**text, "format": "uuid"}, "status": {**text, "enum": ["queued"]}}
    query = {"status": {**text, "enum": ["completed"]}, "video_url": {**text, "enum": [video_url]}}
    body = {"content": {"application/json": {"schema": {"type": "object"}}}}
    parameter = {"name": "id", "in": "path", "required": True, "schema": text}
    document = {
        "openapi": "3.0.3",
        "info": {"title": "videos", "version": "1"},
        "paths": {
            "/v1/videos": {"post": {"requestBody": body, "responses": {"200": _answer(create)}}},
            "/v1/videos/{id}": {"get": {"parameters": [parameter], "responses": {"200": _answer(query)}}},
        },
    }
    path = tmp_path / "videos.yaml"
    path.write_text(yaml.safe_dump(document))

    with serving(port, node / "prism", "mock", "-d", "-h", "127.0.0.1", "-p", str(port), path) as url:
        assert JOBS == succeeded(tmp_path, url)


def _answer(properties: Mapping[str, object]) -> dict[str, object]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
    return {"description": "ok", "content": {"application/json": {"schema": schema}}}


def test_aimock(node: Path, video_url: str, tmp_path: Path) -> None:
    """A mock of several providers: its videos are complete at once, with their address under `url`."""
    port = free_port()
    fixtures = [
        {
            "match": {"userMessage": f"kitten {n}."},
            "response": {"video": {"id": f"video_{n}", "status": "completed", "url": video_url}},
        }
        for n in range(1, JOBS + 1)
    ]
    path = tmp_path / "fixtures.json"
    path.write_text(json.dumps({"fixtures": fixtures}))

    with serving(port, node / "llmock", "-h", "127.0.0.1", "-p", str(port), "-f", path) as url:
        assert JOBS == succeeded(tmp_path, url)


def test_portkey(node: Path, tmp_path: Path) -> None:
    """A gateway in front of the simulator; a proxy adds the headers that tell it where to send requests."""
    port = free_port()
    with (
        run_simulator(tmp_path, "version: 1\ngenerate_s: 0.1\n") as simulator,
        serving(port, node / "gateway", f"--port={port}", "--headless") as url,
        _adding_headers(url, f"{simulator.base_url}/v1") as proxy,
    ):
        assert JOBS == succeeded(tmp_path, proxy)
        assert JOBS == len(simulator.ledger)


@contextmanager
def _adding_headers(target: str, upstream: str) -> Iterator[str]:
    """Pass requests on with the headers of Portkey."""
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
    started: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.Response:
        kept = {
            name: request.headers[name]
            for name in ("Authorization", "Content-Type")
            if name in request.headers
        }
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                target + request.path_qs,
                data=await request.read(),
                headers={**kept, **headers},
            ) as response,
        ):
            body = await response.read()
            return web.Response(body=body, status=response.status, content_type=response.content_type)

    async def serve() -> None:
        server = web.ServerRunner(web.Server(handle))
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        started.append(f"http://127.0.0.1:{server.addresses[0][1]}")
        ready.set()
        await stop.wait()
        await server.cleanup()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_litellm(tmp_path: Path) -> None:
    """LiteLLM's own `/v1/videos` in front of the simulator: ids of its own, and videos under `/content` alone."""
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "litellm[proxy]"], capture_output=True, timeout=800
    )
    if installed.returncode:
        pytest.skip("pip can't install litellm")
    port = free_port()
    with run_simulator(tmp_path, "version: 1\ngenerate_s: 0.1\n") as simulator:
        config = {
            "model_list": [
                {
                    "model_name": "seedance-1-0-pro-250528",
                    "litellm_params": {
                        "model": "openai/seedance-1-0-pro-250528",
                        "api_base": f"{simulator.base_url}/v1",
                        "api_key": "sk-of-the-simulator",
                        "num_retries": 0,
                    },
                }
            ],
            "litellm_settings": {"num_retries": 0},
            "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        }
        path = tmp_path / "litellm.yaml"
        path.write_text(yaml.safe_dump(config))
        command = (
            environment / "bin" / "litellm",
            "--config",
            path,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        )
        with serving(port, *command) as url:
            assert JOBS == succeeded(tmp_path, url)
        assert JOBS == len(simulator.ledger)
