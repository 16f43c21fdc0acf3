"""A download whose process is killed is resumed by the next one."""

from __future__ import annotations

import asyncio
import sys
from hashlib import sha256
from pathlib import Path

from tests.assets.server import serving, video, video_range
from tests.assets.test_download import ETAG, wait_for_bytes
from tests.media.samples import mp4

SIZE = 8_000_000


async def fetch_in_a_process(url: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.assets.fetch_once", url, str(folder), str(folder / "metadata.json")),
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_killed_download_is_resumed(tmp_path: Path) -> None:
    """After kill -9 in the middle the next process fetches the rest, and the digest is that of the file."""
    content = mp4(SIZE)
    responses = (video(content, headers=ETAG, stall_after=5_000_000), video_range(content, headers=ETAG))
    async with serving(*responses) as server:
        killed = await fetch_in_a_process(server.url(), tmp_path)
        await asyncio.to_thread(wait_for_bytes, tmp_path / "assets/sky.mp4.part", 4_500_000)
        killed.kill()
        await killed.wait()
        again = await fetch_in_a_process(server.url(), tmp_path)
        output, _ = await again.communicate()

    assert sha256(content).hexdigest() == output.decode().strip()
    assert '"v1"' == server.requests[1].headers["if-range"]
    assert server.sent_bytes < len(content) + 700_000
