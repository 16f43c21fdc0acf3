"""A download whose process is killed goes on where it was."""

from __future__ import annotations

import asyncio
import sys
from hashlib import sha256
from pathlib import Path

from tests.assets.server import file, rest, serving
from tests.assets.test_download import ETAG, wait_for_bytes
from tests.media.samples import mp4

SIZE = 8_000_000


async def fetch_in_a_process(url: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.assets.fetch_once", url, str(folder), str(folder / "known.json")),
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_killed_download_is_not_paid_for_in_bytes_again(tmp_path: Path) -> None:
    """After kill -9 in the middle the next process fetches the rest, and the digest is that of the file."""
    video = mp4(SIZE)
    answers = (file(video, headers=ETAG, stall=5_000_000), rest(video, headers=ETAG))
    async with serving(*answers) as server:
        killed = await fetch_in_a_process(server.url(), tmp_path)
        await asyncio.to_thread(wait_for_bytes, tmp_path / "assets/sky.mp4.part", 4_500_000)
        killed.kill()
        await killed.wait()
        again = await fetch_in_a_process(server.url(), tmp_path)
        said, _ = await again.communicate()

    assert said.decode().strip() == sha256(video).hexdigest()
    assert server.requests[1].headers["if-range"] == '"v1"'
    assert server.sent_bytes < len(video) + 700_000
