"""
The floor: a lean aiohttp loop that sends the same requests and keeps nothing.

No limits, no retries, no checks, no results; each file is written and forgotten, or with ``durable`` as the last
argument also digested and synced, as a loop is that wants to know what it has.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from hashlib import sha256
from pathlib import Path

import aiohttp


async def run(base_url: str, jobs: int, at_once: int, folder: Path, *, durable: bool) -> None:
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
                    digest = sha256()
                    with (folder / f"{number}.mp4").open("wb") as file:
                        async for chunk in answer.content.iter_any():
                            file.write(chunk)
                            if durable:
                                digest.update(chunk)
                        if durable:
                            file.flush()
                            os.fdatasync(file.fileno())

        await asyncio.gather(*(work() for _ in range(at_once)))


def main() -> None:
    """Run from the command line: base URL, jobs, how many at once, folder, and perhaps ``durable``."""
    base_url, jobs, at_once, folder, *options = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    try:
        import uvloop

        start = uvloop.run
    except ImportError:
        start = asyncio.run
    start(run(base_url, int(jobs), int(at_once), Path(folder), durable="durable" in options))


if __name__ == "__main__":
    main()
