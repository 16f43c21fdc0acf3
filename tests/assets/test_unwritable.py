"""A file that can't be written, beside a folder that can."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.assets.publish import Publisher
from runner.disk import FileUnwritable
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import serving, video
from tests.media.samples import mp4


@pytest.mark.parametrize("length", [1_000, 600_000], ids=["small", "large"])
async def test_a_folder_in_place_of_the_part_file(length: int, tmp_path: Path) -> None:
    """It is trouble of that asset alone, and is named."""
    (tmp_path / "assets/sky.mp4.part").mkdir(parents=True)
    async with serving(video(mp4(length))) as server, fetcher() as fetch:
        with pytest.raises(FileUnwritable, match=r"sky\.mp4\.part can't be written: Is a directory"):
            await fetch.fetch(asset_request(server.url(), tmp_path))


async def test_a_folder_in_place_of_the_final_name(tmp_path: Path) -> None:
    """A folder that has the final name of an asset is an error, and stays as it is."""
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4/mine").touch()
    (tmp_path / "a.mp4.part").write_bytes(b"kitten")
    async with Publisher() as publisher:
        with pytest.raises(FileUnwritable):
            await publisher.publish(f"{tmp_path}/a.mp4.part", f"{tmp_path}/a.mp4")
