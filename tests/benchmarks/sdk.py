"""A peer: the openai SDK's create, retrieve until it ended, and download, many at once."""

from __future__ import annotations

import asyncio
import itertools
import sys
import warnings
from pathlib import Path

from openai import AsyncOpenAI


async def run(base_url: str, jobs: int, at_once: int, folder: Path) -> None:
    """Submit, poll and download ``jobs`` jobs, ``at_once`` at a time."""
    numbers = itertools.count()
    async with AsyncOpenAI(api_key="key", base_url=f"{base_url}/v1", max_retries=0) as client:

        async def work() -> None:
            while (number := next(numbers)) < jobs:
                video = await client.videos.create(model="sora-2", prompt=f"kitten {number}", seconds="4")
                while video.status in ("queued", "in_progress"):
                    video = await client.videos.retrieve(video.id)
                content = await client.videos.download_content(video.id)
                (folder / f"{number}.mp4").write_bytes(content.content)

        await asyncio.gather(*(work() for _ in range(at_once)))


def main() -> None:
    """Run from the command line: base URL, jobs, how many at once, folder."""
    base_url, jobs, at_once, folder = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    warnings.simplefilter("ignore")
    asyncio.run(run(base_url, int(jobs), int(at_once), Path(folder)))


if __name__ == "__main__":
    main()
