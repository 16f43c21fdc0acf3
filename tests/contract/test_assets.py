"""How an asset gets its final name: with the fakes, and with the real fetcher, a server, and the real publisher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.publish import Publisher
from runner.assets.request import AssetRequest, Fetched, FetchFailure, NotFetched, part_path
from runner.core.model import FailureClass
from runner.errors import RunDirError
from runner.worker.ports import AssetPublisher, Downloader
from tests.assets.helpers import asset_request, fetcher
from tests.assets.server import Response, serving, video
from tests.engine.answers import failure
from tests.engine.fakes import FakeDownloader, FakePublisher
from tests.media.samples import mp4


@dataclass(frozen=True)
class Parts:
    """What downloads an asset, what publishes it, and a request for one."""

    fetcher: Downloader
    publisher: AssetPublisher
    request: AssetRequest

    async def fetch(self) -> Fetched | NotFetched:
        """Download it, without saving its metadata."""
        return await self.fetcher.fetch(self.request, lambda metadata: None)


@asynccontextmanager
async def faked(folder: Path, *, is_gone: bool = False) -> AsyncIterator[Parts]:
    """Use the fakes."""
    answer = NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED)) if is_gone else None
    yield Parts(
        FakeDownloader(lambda name, nth: answer, takes_s=0.0),
        FakePublisher(),
        asset_request("https://cdn.example/a.mp4", folder),
    )


@asynccontextmanager
async def real(folder: Path, *, is_gone: bool = False) -> AsyncIterator[Parts]:
    """Use the real parts; the server is on loopback."""
    answer = Response(403, b"expired") if is_gone else video(mp4(1_000))
    async with serving(answer) as server, fetcher(server.url("")) as fetching, Publisher() as publishing:
        yield Parts(fetching, publishing, asset_request(server.url(), folder))


OpenParts = Callable[..., AbstractAsyncContextManager[Parts]]
both = pytest.mark.parametrize("open_parts", [faked, real])


@both
async def test_an_asset_is_a_part_file_until_it_is_published(open_parts: OpenParts, tmp_path: Path) -> None:
    """
    What was downloaded is complete, beside its final name; only publishing gives it that name.
    """
    async with open_parts(tmp_path) as parts:
        final = Path(parts.request.path)
        fetched = await parts.fetch()
        assert isinstance(fetched, Fetched)
        part = Path(fetched.part_path)
        content, was_named = part.read_bytes(), final.exists()
        await parts.publisher.publish(fetched.part_path, parts.request.path)

    assert (part_path(parts.request.path), False) == (fetched.part_path, was_named)
    assert (len(content), sha256(content).hexdigest()) == (fetched.bytes, fetched.sha256)
    assert "video/mp4" == fetched.info.media_type
    assert (content, False) == (final.read_bytes(), part.exists())


@both
async def test_an_asset_that_is_gone_is_an_outcome(open_parts: OpenParts, tmp_path: Path) -> None:
    """
    A URL that gives nothing raises nothing, and leaves no file.
    """
    async with open_parts(tmp_path, is_gone=True) as parts:
        outcome = await parts.fetch()

    assert isinstance(outcome, NotFetched)
    assert (FetchFailure.EXPIRED, FailureClass.DOWNLOAD_FAILED) == (outcome.reason, outcome.failure.cls)
    assert not Path(parts.request.path).exists()


@both
async def test_publishing_replaces_an_older_file(open_parts: OpenParts, tmp_path: Path) -> None:
    """
    The file of a new attempt replaces the old one.
    """
    async with open_parts(tmp_path) as parts:
        fetched = await parts.fetch()
        assert isinstance(fetched, Fetched)
        Path(parts.request.path).write_bytes(b"old")
        await parts.publisher.publish(fetched.part_path, parts.request.path)

    assert fetched.bytes == Path(parts.request.path).stat().st_size


@both
async def test_a_file_that_can_not_be_published_stops_the_run(open_parts: OpenParts, tmp_path: Path) -> None:
    """
    An error of the run directory is raised, and is not an outcome of one job.
    """
    async with open_parts(tmp_path) as parts:
        with pytest.raises(RunDirError):
            await parts.publisher.publish(f"{tmp_path}/none.part", f"{tmp_path}/none.mp4")
