"""
The floor: a lean aiohttp loop that sends the same requests and keeps nothing.

No limits, no retries, no checks, no results; each file is written and forgotten.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path

import aiohttp


async def run(base_url: str, jobs: int, at_once: int, folder: Path) -> None:
    """Submit, poll and download ``jobs`` jobs, ``at_once`` at a time."""
    numbers = itertools.count()
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work() -> None:
            while (number := next(numbers)) < jobs:
                request = {"model": "seedance-1-0-pro-250528", "prompt": f"kitten {number}", "seconds": "5"}
                async with session.post(f"{base_url}/v1/videos", data=json.dumps(request).encode()) as answer:
                    task = json.loads(await answer.read())["id"]
                while True:
                    async with session.get(f"{base_url}/v1/videos/{task}") as answer:
                        seen = json.loads(await answer.read())
                    if seen["status"] == "succeeded":
                        break
                async with session.get(seen["video_url"]) as answer:
                    with (folder / f"{number}.mp4").open("wb") as file:
                        async for chunk in answer.content.iter_any():
                            file.write(chunk)

        await asyncio.gather(*(work() for _ in range(at_once)))


def main() -> None:
    """Run from the command line: base URL, jobs, how many at once, folder."""
    base_url, jobs, at_once, folder = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    try:
        import uvloop

        start = uvloop.run
    except ImportError:
        start = asyncio.run
    start(run(base_url, int(jobs), int(at_once), Path(folder)))


if __name__ == "__main__":
    main()
