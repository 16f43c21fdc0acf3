"""Files get their final names together, durable, and each caller gets the result of its own file."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.publish import Publisher, is_complete, sync_files
from runner.core.model import Asset, AssetKind
from runner.errors import RunDirError


def make_parts(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    parts = [folder / f"{n}.mp4.part" for n in range(count)]
    for n, part in enumerate(parts):
        part.write_text(f"file {n}")
    return parts


async def publish(publisher: Publisher, part: Path, final: Path | None = None) -> None:
    await publisher.publish(str(part), str(part.with_suffix("") if final is None else final))


async def test_simultaneous_files_are_published_together(tmp_path: Path) -> None:
    """Every file ends under its own name, with its own bytes, and no part is left."""
    parts = make_parts(tmp_path / "assets", 300)
    async with Publisher() as publisher:
        await asyncio.gather(*(publish(publisher, part) for part in parts))

    assert [f"file {n}" for n in range(300)] == [part.with_suffix("").read_text() for part in parts]
    assert not any(part.exists() for part in parts)


async def test_a_file_replaces_an_older_one(tmp_path: Path) -> None:
    """A rerun replaces the old result, in one step, when the new one is complete."""
    (part,) = make_parts(tmp_path / "assets", 1)
    final = part.with_suffix("")
    final.write_text("old")
    async with Publisher() as publisher:
        await publish(publisher, part)

    assert "file 0" == final.read_text()


async def test_one_file_that_fails_does_not_block_the_others(tmp_path: Path) -> None:
    """Each caller gets the error of its own file, with what to do."""
    parts = make_parts(tmp_path / "assets", 2)
    missing, without_folder = tmp_path / "assets/none.mp4.part", parts.pop()
    async with Publisher() as publisher:
        results = await asyncio.gather(
            publish(publisher, parts[0]),
            publish(publisher, missing),
            publish(publisher, without_folder, tmp_path / "no such folder/a.mp4"),
            return_exceptions=True,
        )

    assert [type(None), RunDirError, RunDirError] == [type(result) for result in results]
    assert parts[0].with_suffix("").exists()


async def test_leaving_finishes_what_was_requested(tmp_path: Path) -> None:
    """A drain loses no file that was requested, even if nobody waits for it any more."""
    parts = make_parts(tmp_path / "assets", 20)
    async with Publisher() as publisher:
        callers = [asyncio.create_task(publish(publisher, part)) for part in parts]
        await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    assert all(part.with_suffix("").exists() for part in parts)


async def test_leaving_finishes_requests_of_the_same_moment(tmp_path: Path) -> None:
    """A file that was requested just before the publisher is left is published, and its caller does not hang."""
    parts = make_parts(tmp_path / "assets", 2)
    async with Publisher() as publisher:
        callers = [asyncio.create_task(publish(publisher, part)) for part in parts]
        await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*callers)
    assert all(part.with_suffix("").exists() for part in parts)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe is what can't be synced")
async def test_a_part_that_can_not_be_synced_is_deleted(tmp_path: Path) -> None:
    """Nobody knows how much of it is on the disk, so nothing resumes it."""
    part = tmp_path / "a.mp4.part"
    os.mkfifo(part)
    async with Publisher() as publisher:
        with pytest.raises(RunDirError):
            await publish(publisher, part)

    assert [] == list(tmp_path.iterdir())


async def test_an_unexpected_error_reaches_every_caller(tmp_path: Path) -> None:
    """A bug in the publisher's thread is raised by its callers, which would hang otherwise."""
    async with Publisher() as publisher, asyncio.timeout(5):
        with pytest.raises(ValueError, match="null"):
            await publisher.publish(f"{tmp_path}/a\0b", f"{tmp_path}/a")


def test_syncing_returns_an_error_for_each_file(tmp_path: Path) -> None:
    """An error of one file is not another file's, whichever thread met it."""
    parts = make_parts(tmp_path / "a", 5)
    parts[2].unlink()
    with ThreadPoolExecutor(2) as pool:
        errors = sync_files([str(part) for part in parts], pool)

    assert [True, True, False, True, True] == [error is None for error in errors]


@pytest.mark.parametrize(
    ("content", "expected"), [(b"video", True), (b"vidoe", False), (b"vide", False), (None, False)]
)
def test_a_complete_file_is_recognized_by_its_digest(
    content: bytes | None, expected: bool, tmp_path: Path
) -> None:
    """What is on disk with the right digest is not downloaded again, and nothing else is taken for it."""
    final = tmp_path / "a.mp4"
    if content is not None:
        final.write_bytes(content)
    asset = Asset(AssetKind.VIDEO, "a.mp4", 5, sha256(b"video").hexdigest(), "video/mp4")

    assert expected == is_complete(str(final), asset)
