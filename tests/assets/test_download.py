"""What a download does besides getting the bytes: remembers, waits, makes sure of room, and keeps what came."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runner.assets.request import Fetched, FetchFailure, NotFetched, PartMetadata
from runner.assets.response import OVERLAP_BYTES
from runner.core.model import AssetKind, FailureClass
from runner.core.settings import RetryPolicy, Timeouts
from runner.errors import DiskFull, RunDirError
from tests.assets.helpers import Waits, fetcher, wish
from tests.assets.server import Answer, file, rest, serving
from tests.media.samples import jpeg, mp4, png

SMALL = mp4(1_000)
LARGE = mp4(600_000)
ETAG = {"ETag": '"v1"'}


def wait_for_bytes(path: Path, size: int) -> None:
    """Wait in a thread until a file has grown to a size."""
    while not path.exists() or path.stat().st_size < size:
        time.sleep(0.001)


async def test_a_remembered_validator_guards_the_rest(tmp_path: Path) -> None:
    """With a strong ETag the server is told to send the rest of that very file, or all of another."""
    remembered: list[PartMetadata] = []
    async with (
        serving(file(LARGE, headers=ETAG, cut=400_000), rest(LARGE)) as server,
        fetcher() as fetch,
    ):
        await fetch.fetch(wish(server.url(), tmp_path), remembered.append)

    assert [PartMetadata(len(LARGE), '"v1"')] == remembered
    assert [request.headers.get("if-range") for request in server.requests] == [None, '"v1"']
    assert {"identity"} == {request.headers["accept-encoding"] for request in server.requests}


async def test_a_download_that_gets_on_is_not_given_up(tmp_path: Path) -> None:
    """Over a network that breaks every 100 KB a file of 600 KB takes more tries than the policy has in a row."""
    answers = [file(LARGE, cut=100_000), *[rest(LARGE, new=100_000)] * 5]
    async with serving(*answers) as server, fetcher(retry=RetryPolicy(attempts=2)) as fetch:
        server.last = rest(LARGE)
        result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, Fetched)
    assert server.sent_bytes < 2 * len(LARGE)


async def test_small_files_are_not_remembered(tmp_path: Path) -> None:
    """A write to the store for each of a million small files would cost more than fetching one again."""
    remembered: list[PartMetadata] = []
    async with serving(file(SMALL, headers=ETAG)) as server, fetcher() as fetch:
        await fetch.fetch(wish(server.url(), tmp_path), remembered.append)

    assert remembered == []


@pytest.mark.parametrize(("content", "media_type"), [(png(), "image/png"), (jpeg(), "image/jpeg")])
async def test_last_frames_are_known_by_their_bytes(content: bytes, media_type: str, tmp_path: Path) -> None:
    """A picture is held against its own structure, whatever type the host claims."""
    answer = Answer(200, content, {"Content-Type": "application/octet-stream"})
    async with serving(answer) as server, fetcher() as fetch:
        result = await fetch.fetch(wish(server.url(), tmp_path, kind=AssetKind.LAST_FRAME))

    assert isinstance(result, Fetched)
    assert (media_type, 64, 48) == (result.facts.media_type, result.facts.width, result.facts.height)


async def test_waits_grow_and_honour_the_server(tmp_path: Path) -> None:
    """Backoff doubles with jitter; a Retry-After is waited for even where it is longer, in seconds or as a date."""
    waits = Waits()
    later = {"Retry-After": "Tue, 14 Nov 2023 22:15:00 GMT"}
    answers = (
        Answer(500),
        Answer(503, headers={"Retry-After": "90"}),
        Answer(429, headers=later),
        file(SMALL),
    )
    retry = RetryPolicy(attempts=4, base_s=2.0, cap_s=60.0)
    async with serving(*answers) as server, fetcher(waits=waits, retry=retry) as fetch:
        result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, Fetched)
    assert waits == [1.0, 90.0, 100.0]


async def test_a_server_that_asks_for_hours_is_left_to_a_later_run(tmp_path: Path) -> None:
    """No host can park a job for days."""
    answer = Answer(503, headers={"Retry-After": "86400"})
    async with serving(answer) as server, fetcher() as fetch:
        result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert FetchFailure.EXHAUSTED is result.reason


async def test_a_flawed_file_is_kept_beside_for_a_look(tmp_path: Path) -> None:
    """It was paid for, and a person may want to see it; the next download starts from nothing."""
    flawed = LARGE.replace(b"moov", b"free")
    async with serving(file(flawed)) as server, fetcher() as fetch:
        result = await fetch.fetch(wish(server.url(), tmp_path))

    assert isinstance(result, NotFetched)
    assert FailureClass.ASSET_INVALID is result.failure.cls
    assert [path.name for path in (tmp_path / "assets").iterdir()] == ["sky.mp4.invalid"]


async def test_a_full_disk_stops_a_download_before_it_begins(tmp_path: Path) -> None:
    """Room is made sure of from the declared length, with a reserve for the store."""
    async with serving(file(LARGE)) as server, fetcher(free_bytes=lambda folder: 256 << 20) as fetch:
        with pytest.raises(DiskFull, match=r"0\.3 GB free; the downloads in progress need"):
            await fetch.fetch(wish(server.url(), tmp_path))


async def test_downloads_on_their_way_count_as_used_room(tmp_path: Path) -> None:
    """Many downloads that would each fit alone must not fill the disk together."""
    free = (256 << 20) + len(LARGE) * 3 // 2
    begun = asyncio.Event()
    async with (
        serving(file(LARGE, stall=1000), file(LARGE)) as server,
        fetcher(free_bytes=lambda folder: free, timeouts=Timeouts(stall_s=30)) as fetch,
    ):
        first = asyncio.create_task(
            fetch.fetch(wish(server.url(), tmp_path / "1"), lambda facts: begun.set())
        )
        await begun.wait()
        with pytest.raises(DiskFull):
            await fetch.fetch(wish(server.url(), tmp_path / "2"))
        first.cancel()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_folder_that_cannot_be_written_is_for_a_person(content: bytes, tmp_path: Path) -> None:
    """A local error is told apart from one of the network, and is not tried again."""
    (tmp_path / "assets").write_text("a file where the folder should be")
    async with serving(file(content)) as server, fetcher() as fetch:
        with pytest.raises(RunDirError, match="can't be written"):
            await fetch.fetch(wish(server.url(), tmp_path))

    assert len(server.requests) == 1


async def test_a_cancelled_download_keeps_what_came(tmp_path: Path) -> None:
    """The second Ctrl-C loses nothing: the next run goes on from there."""
    async with serving(file(LARGE, stall=500_000)) as server:
        async with fetcher(timeouts=Timeouts(stall_s=30)) as fetch:
            task = asyncio.create_task(fetch.fetch(wish(server.url(), tmp_path)))
            part = tmp_path / "assets/sky.mp4.part"
            await asyncio.to_thread(wait_for_bytes, part, 300_000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with fetcher() as fetch:
            server.answers = [rest(LARGE)]
            result = await fetch.fetch(wish(server.url(), tmp_path, known=PartMetadata(len(LARGE))))

    assert isinstance(result, Fetched)
    assert part.read_bytes() == LARGE
    assert server.requests[1].first >= 300_000 - OVERLAP_BYTES


async def test_many_downloads_at_once_do_not_mix(tmp_path: Path) -> None:
    """Every file gets its own bytes, whatever is written by which thread."""
    contents = [mp4(300_000 + n, seconds=float(n)) for n in range(1, 9)]
    async with serving() as server, fetcher() as fetch:
        by_path = {f"/{n}": content for n, content in enumerate(contents)}
        server.answer_by_path = lambda path: file(by_path[path])
        results = await asyncio.gather(
            *(fetch.fetch(wish(server.url(f"/{n}"), tmp_path / str(n))) for n in range(8))
        )

    for n, result in enumerate(results):
        assert isinstance(result, Fetched)
        assert contents[n] == Path(result.part_path).read_bytes()
