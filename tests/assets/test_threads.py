"""Threads of downloads and of publishing end with what started them."""

from __future__ import annotations

import threading
from pathlib import Path

from runner.assets.publish import Publisher
from runner.assets.request import Fetched
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import serving, video
from tests.media.samples import mp4


def asset_threads() -> set[str]:
    """Return the names of the threads that assets are written and synced by, without their numbers."""
    names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
    return {name for name in names if name.startswith("asset-")}


async def test_no_thread_is_left(tmp_path: Path) -> None:
    """A program that runs one manifest after the other does not gather threads."""
    async with serving(*[video(mp4(600_000))] * 2) as server, fetcher() as fetch, Publisher() as publisher:
        results = [await fetch.fetch(asset_request(server.url(), tmp_path / str(n))) for n in range(2)]
        for result in results:
            assert isinstance(result, Fetched)
            await publisher.publish(result.part_path, result.part_path.removesuffix(".part"))
        assert {"asset-writer", "asset-publisher"} <= asset_threads()

    assert set() == asset_threads()
