"""The openai SDK as an independent client."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import aiohttp
import openai
import pytest

from tests.simulator.simulator_client import start_simulator

REQUEST = {
    "model": "wan2.7-i2v",
    "media": [
        {"type": "first_frame", "url": "https://example.com/a.png"},
        {"type": "last_frame", "url": "https://example.com/b.png"},
    ],
}

# The SDK marks the whole resource as deprecated, since another vendor's models behind it are.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


async def test_the_sdk_retrieves_and_downloads() -> None:
    """It can read the task and download the video."""
    async with start_simulator() as client, openai_client(client.simulator.base_url) as api:
        task_id = await client.accepted(REQUEST)
        client.clock.now += 5
        running = await api.videos.retrieve(task_id)
        client.clock.now += 10
        done = await api.videos.retrieve(task_id)
        content = await (await api.videos.download_content(task_id)).aread()

    assert ("in_progress", 50) == (running.status, running.progress)
    assert ("completed", 100, task_id) == (done.status, done.progress, done.id)
    assert b"ftyp" == content[4:8]


async def test_the_sdk_understands_errors() -> None:
    """A key that is not accepted and a task that does not exist raise its own exceptions."""
    async with (
        start_simulator("keys: [sk-sim-other]") as client,
        openai_client(client.simulator.base_url) as api,
    ):
        with pytest.raises(openai.AuthenticationError, match="Invalid token"):
            await api.videos.retrieve("task_x")
    async with start_simulator() as client, openai_client(client.simulator.base_url) as api:
        with pytest.raises(openai.BadRequestError, match="task_not_exist"):
            await api.videos.retrieve("task_x")


async def test_the_sdk_creates_and_polls() -> None:
    """Unchanged calls make a task: the form that it sends has its fields as text, with a file or without."""
    async with (
        start_simulator("rules: [{task: {generate_s: 0}}]") as client,
        openai_client(client.simulator.base_url) as api,
    ):
        made = await api.videos.create_and_poll(
            model="sora-2", prompt="A kitten", seconds="4", size="720x1280", poll_interval_ms=1
        )
        wan = await api.videos.create(
            model="wan2.7-t2v",
            prompt="A kitten",
            input_reference=("a.png", b"png", "image/png"),
            extra_body={"seconds": "2", "size": "720p", "seed": "5", "watermark": "true"},
        )
        with pytest.raises(openai.BadRequestError, match="seconds: '99' is not allowed"):
            await api.videos.create(model="wan2.7-t2v", prompt="x", seconds="99")  # type: ignore[arg-type]

    assert ("completed", "sora-2", 100) == (made.status, made.model, made.progress)
    assert "queued" == wan.status
    first, second = client.simulator.ledger.accepted
    assert (("4", "720x1280"), ("2", "720P")) == tuple(
        (entry.video_options["seconds"], entry.video_options["size"]) for entry in (first, second)
    )
    assert ["A kitten", "A kitten"] == [first.prompt, second.prompt]


NODE_PROGRAM = """
import OpenAI, { toFile } from 'openai';
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'sk-sim-key', maxRetries: 0 });
let video = await client.videos.create({
  model: 'sora-2', prompt: 'A kitten', seconds: '4', size: '720x1280',
  input_reference: await toFile(Buffer.from('png'), 'a.png', { type: 'image/png' }),
});
while (video.status === 'queued' || video.status === 'in_progress') {
  video = await client.videos.retrieve(video.id);
}
const content = Buffer.from(await (await client.videos.downloadContent(video.id)).arrayBuffer());
console.log(JSON.stringify([video.status, video.progress, content.subarray(4, 8).toString()]));
"""


@pytest.mark.slow
@pytest.mark.extended
async def test_the_sdk_of_node_creates_and_polls(tmp_path: Path) -> None:
    """Unchanged calls of the newest openai package for Node make a task, see its end and download its video."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node is not installed")
    install = [npm, "install", "--silent", "--prefix", str(tmp_path), "openai"]
    if (await asyncio.to_thread(subprocess.run, install, capture_output=True)).returncode:
        pytest.skip("npm can't install openai")
    (tmp_path / "program.mjs").write_text(NODE_PROGRAM)

    async with start_simulator("rules: [{task: {generate_s: 0}}]") as client:
        command = [node, "program.mjs", f"{client.simulator.base_url}/v1"]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    assert ["completed", 100, "ftyp"] == json.loads(done.stdout or "null"), done.stderr
    (entry,) = client.simulator.ledger.accepted
    assert ("A kitten", "4", "720x1280") == (
        entry.prompt,
        entry.video_options["seconds"],
        entry.video_options["size"],
    )


async def test_a_body_that_is_not_a_form() -> None:
    """A form without its parts is 400, like JSON that can't be read."""
    async with start_simulator() as client, aiohttp.ClientSession() as session:
        headers = {"Content-Type": "multipart/form-data; boundary=x", "Authorization": "Bearer sk-sim-key"}
        url = f"{client.simulator.base_url}/v1/videos"
        async with session.post(url, data=b"no parts", headers=headers) as response:
            assert 400 == response.status
    assert [] == client.simulator.ledger.accepted


def openai_client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="sk-sim-key", max_retries=0)
