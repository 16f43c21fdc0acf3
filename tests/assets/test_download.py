"""What a download does besides receiving bytes: it saves metadata, waits, checks disk space, and keeps what it received."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runner.assets.request import Fetched, FetchFailure, NotFetched, PartMetadata
from runner.assets.response import OVERLAP_BYTES
from runner.core.model import AssetKind, FailureClass
from runner.core.settings import AssetRules, RetryPolicy, Timeouts
from runner.errors import DiskFull, RunDirError
from tests.assets.helpers import FakeSleep, asset_request, fetcher
from tests.assets.server import RangeHandler, Response, serving, video, video_range
from tests.media.samples import jpeg, mp4, png

SMALL = mp4(1_000)
LARGE = mp4(600_000)
ETAG = {"ETag": '"v1"'}


def wait_for_bytes(path: Path, size: int) -> None:
    """Wait in a thread until a file has grown to a size."""
    while not path.exists() or path.stat().st_size < size:
        time.sleep(0.001)


async def test_a_saved_validator_guards_the_rest(tmp_path: Path) -> None:
    """With a strong ETag the server is asked for the rest of that very file, or all of another."""
    saved: list[PartMetadata] = []
    async with (
        serving(video(LARGE, headers=ETAG, close_after=400_000), video_range(LARGE)) as server,
        fetcher() as fetch,
    ):
        await fetch.fetch(asset_request(server.url(), tmp_path), saved.append)

    assert [PartMetadata(len(LARGE), '"v1"')] == saved
    assert [None, '"v1"'] == [request.headers.get("if-range") for request in server.requests]
    assert {"identity"} == {request.headers["accept-encoding"] for request in server.requests}


async def test_a_download_that_makes_progress_is_not_given_up(tmp_path: Path) -> None:
    """Over a network that breaks every 100 KB a file of 600 KB takes more tries than the policy has in a row."""
    responses: list[Response | RangeHandler] = [
        video(LARGE, close_after=100_000),
        *[video_range(LARGE, new=100_000)] * 5,
    ]
    async with serving(*responses) as server, fetcher(retry=RetryPolicy(attempts=2)) as fetch:
        server.default_response = video_range(LARGE)
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, Fetched)
    assert server.sent_bytes < 2 * len(LARGE)


async def test_a_body_without_length_and_validator_is_saved_too(tmp_path: Path) -> None:
    """That nothing is known of a body is saved, so that its part is trusted: the overlap shows whether it fits."""
    saved: list[PartMetadata] = []
    async with serving(video(LARGE, chunked=True)) as server, fetcher() as fetch:
        await fetch.fetch(asset_request(server.url(), tmp_path), saved.append)

    assert [PartMetadata()] == saved


async def test_metadata_of_small_files_is_not_saved(tmp_path: Path) -> None:
    """A write to the store for each of a million small files would cost more than fetching one again."""
    saved: list[PartMetadata] = []
    async with serving(video(SMALL, headers=ETAG)) as server, fetcher() as fetch:
        await fetch.fetch(asset_request(server.url(), tmp_path), saved.append)

    assert [] == saved


@pytest.mark.parametrize(("content", "media_type"), [(png(), "image/png"), (jpeg(), "image/jpeg")])
async def test_images_are_recognized_by_their_bytes(content: bytes, media_type: str, tmp_path: Path) -> None:
    """An image is checked by its own structure, whatever type the host states."""
    answer = Response(200, content, {"Content-Type": "application/octet-stream"})
    async with serving(answer) as server, fetcher() as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path, kind=AssetKind.LAST_FRAME))

    assert isinstance(result, Fetched)
    assert (media_type, 64, 48) == (result.info.media_type, result.info.width, result.info.height)


async def test_waits_grow_and_honor_retry_after(tmp_path: Path) -> None:
    """Backoff doubles with jitter; a Retry-After is waited for even where it is longer, in seconds or as a date."""
    sleep = FakeSleep()
    later = {"Retry-After": "Tue, 14 Nov 2023 22:15:00 GMT"}
    responses = (
        Response(500),
        Response(503, headers={"Retry-After": "90"}),
        Response(429, headers=later),
        video(SMALL),
    )
    retry = RetryPolicy(attempts=4, base_s=2.0, cap_s=60.0)
    async with serving(*responses) as server, fetcher(sleep=sleep, retry=retry) as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, Fetched)
    assert [1.0, 90.0, 100.0] == sleep


async def test_a_wait_of_hours_is_left_to_a_later_run(tmp_path: Path) -> None:
    """No host can park a job for days."""
    answer = Response(503, headers={"Retry-After": "86400"})
    async with serving(answer) as server, fetcher() as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.EXHAUSTED is result.reason


async def test_an_invalid_file_is_kept_for_inspection(tmp_path: Path) -> None:
    """It was paid for, and a person may want to see it; the next download starts from nothing."""
    damaged = LARGE.replace(b"moov", b"free")
    async with serving(video(damaged)) as server, fetcher() as fetch:
        result = await fetch.fetch(asset_request(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert FailureClass.ASSET_INVALID is result.failure.cls
    assert ["sky.mp4.invalid"] == [path.name for path in (tmp_path / "assets").iterdir()]


async def test_a_full_disk_stops_a_download_before_it_starts(tmp_path: Path) -> None:
    """The declared length must fit the disk, with a reserve for the store."""
    async with serving(video(LARGE)) as server, fetcher(free_bytes=lambda folder: 256 << 20) as fetch:
        with pytest.raises(DiskFull, match=r"268 MB free; the downloads in progress need"):
            await fetch.fetch(asset_request(server.url(), tmp_path))


async def test_downloads_in_progress_count_as_used_space(tmp_path: Path) -> None:
    """Many downloads that would each fit alone must not fill the disk together."""
    free = (256 << 20) + len(LARGE) * 3 // 2
    started = asyncio.Event()
    async with (
        serving(video(LARGE, stall_after=1000), video(LARGE)) as server,
        fetcher(free_bytes=lambda folder: free, timeouts=Timeouts(stall_s=30)) as fetch,
    ):
        first = asyncio.create_task(
            fetch.fetch(asset_request(server.url(), tmp_path / "1"), lambda metadata: started.set())
        )
        await started.wait()
        with pytest.raises(DiskFull):
            await fetch.fetch(asset_request(server.url(), tmp_path / "2"))
        first.cancel()


async def test_space_of_ended_downloads_is_free_again(tmp_path: Path) -> None:
    """What a download reserved counts only while it is in progress."""
    free = (256 << 20) + len(LARGE) * 3 // 2
    async with (
        serving(video(LARGE), video(LARGE)) as server,
        fetcher(free_bytes=lambda folder: free) as fetch,
    ):
        results = [await fetch.fetch(asset_request(server.url(), tmp_path / str(n))) for n in range(2)]

    assert [Fetched, Fetched] == [type(result) for result in results]


async def test_a_part_file_past_the_limit_is_deleted(tmp_path: Path) -> None:
    """What is not the asset does not fill the disk."""
    rules = AssetRules(max_bytes=500_000)
    async with serving(video(LARGE, chunked=True)) as server, fetcher(rules=rules) as fetch:
        await fetch.fetch(asset_request(server.url(), tmp_path))

    assert [] == list((tmp_path / "assets").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc lists the open files on Linux only")
async def test_files_are_closed(tmp_path: Path) -> None:
    """A download that fails leaves no file open."""
    async with serving() as server, fetcher() as fetch:
        server.default_response = video(LARGE, close_after=300_000)
        await fetch.fetch(asset_request(server.url(), tmp_path))
        open_files = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.exists()]

    assert [] == [path for path in open_files if path.is_relative_to(tmp_path)]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_folder_that_cannot_be_written_is_an_error(content: bytes, tmp_path: Path) -> None:
    """A local error is not taken for one of the network, and is not tried again."""
    (tmp_path / "assets").write_text("a file where the folder should be")
    async with serving(video(content)) as server, fetcher() as fetch:
        with pytest.raises(RunDirError, match="can't be written"):
            await fetch.fetch(asset_request(server.url(), tmp_path))

    assert 1 == len(server.requests)


async def test_a_canceled_download_keeps_what_was_received(tmp_path: Path) -> None:
    """The second Ctrl-C loses nothing: the next run resumes there."""
    async with serving(video(LARGE, stall_after=500_000)) as server:
        async with fetcher(timeouts=Timeouts(stall_s=30)) as fetch:
            task = asyncio.create_task(fetch.fetch(asset_request(server.url(), tmp_path)))
            part = tmp_path / "assets/sky.mp4.part"
            await asyncio.to_thread(wait_for_bytes, part, 300_000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with fetcher() as fetch:
            server.responses = [video_range(LARGE)]
            result = await fetch.fetch(
                asset_request(server.url(), tmp_path, metadata=PartMetadata(len(LARGE)))
            )

    assert isinstance(result, Fetched)
    assert LARGE == part.read_bytes()
    assert server.requests[1].offset >= 300_000 - OVERLAP_BYTES


async def test_many_downloads_at_once_do_not_mix(tmp_path: Path) -> None:
    """Every file gets its own bytes, whatever is written by which thread."""
    contents = [mp4(300_000 + n, seconds=float(n)) for n in range(1, 9)]
    async with serving() as server, fetcher() as fetch:
        by_path = {f"/{n}": content for n, content in enumerate(contents)}
        server.response_by_path = lambda path: video(by_path[path])
        results = await asyncio.gather(
            *(fetch.fetch(asset_request(server.url(f"/{n}"), tmp_path / str(n))) for n in range(8))
        )

    for n, result in enumerate(results):
        assert isinstance(result, Fetched)
        assert contents[n] == Path(result.part_path).read_bytes()
