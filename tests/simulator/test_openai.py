"""The openai SDK as an independent client."""

from __future__ import annotations

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


def openai_client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="sk-sim-key", max_retries=0)
