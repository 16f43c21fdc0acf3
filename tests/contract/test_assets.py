"""How an asset comes to have its name: the fakes beside the real fetcher, before a server, and the real publisher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.publish import Publisher
from runner.assets.request import AssetRequest, Fetched, FetchFailure, NotFetched, part_of
from runner.core.model import FailureClass
from runner.errors import RunDirError
from runner.worker.deliver import AssetPublisher, Downloader
from tests.assets.helpers import fetcher, wish
from tests.assets.server import Answer, file, serving
from tests.engine.answers import failure
from tests.engine.fakes import FakeFetcher, FakePublisher
from tests.media.samples import mp4


@dataclass(frozen=True)
class Hands:
    """What brings an asset, and what names it; `wish` is for one that can be had."""

    fetcher: Downloader
    publisher: AssetPublisher
    wish: AssetRequest

    async def fetch(self) -> Fetched | NotFetched:
        """Fetch it, with nobody who remembers."""
        return await self.fetcher.fetch(self.wish, lambda facts: None)


@asynccontextmanager
async def faked(folder: Path, *, is_gone: bool = False) -> AsyncIterator[Hands]:
    """Use the fakes."""
    answer = NotFetched(FetchFailure.EXPIRED, failure(FailureClass.DOWNLOAD_FAILED)) if is_gone else None
    yield Hands(
        FakeFetcher(lambda name, nth: answer, takes_s=0.0),
        FakePublisher(),
        wish("https://cdn.example/a.mp4", folder),
    )


@asynccontextmanager
async def real(folder: Path, *, is_gone: bool = False) -> AsyncIterator[Hands]:
    """Use the real ones; the server is on loopback."""
    answer = Answer(403, b"expired") if is_gone else file(mp4(1_000))
    async with serving(answer) as server, fetcher(server.url("")) as fetching, Publisher() as publishing:
        yield Hands(fetching, publishing, wish(server.url(), folder))


Having = Callable[..., AbstractAsyncContextManager[Hands]]
both = pytest.mark.parametrize("hands", [faked, real])


@both
async def test_asset_is_a_part_until_it_is_published(hands: Having, tmp_path: Path) -> None:
    """
    What was fetched is whole, beside the name that it is to have; only publishing gives it that.
    """
    async with hands(tmp_path) as have:
        final = Path(have.wish.path)
        fetched = await have.fetch()
        assert isinstance(fetched, Fetched)
        part = Path(fetched.part_path)
        content, was_named = part.read_bytes(), final.exists()
        await have.publisher.publish(fetched.part_path, have.wish.path)

    assert (part_of(have.wish.path), False) == (fetched.part_path, was_named)
    assert (len(content), sha256(content).hexdigest()) == (fetched.bytes, fetched.sha256)
    assert "video/mp4" == fetched.facts.media_type
    assert (content, False) == (final.read_bytes(), part.exists())


@both
async def test_asset_that_can_not_be_had_is_an_outcome(hands: Having, tmp_path: Path) -> None:
    """
    An address that gives nothing raises nothing, and leaves no file.
    """
    async with hands(tmp_path, is_gone=True) as have:
        outcome = await have.fetch()

    assert isinstance(outcome, NotFetched)
    assert (FetchFailure.EXPIRED, FailureClass.DOWNLOAD_FAILED) == (outcome.reason, outcome.failure.cls)
    assert not Path(have.wish.path).exists()


@both
async def test_publishing_takes_the_place_of_an_older_file(hands: Having, tmp_path: Path) -> None:
    """
    A new attempt's file replaces the old one.
    """
    async with hands(tmp_path) as have:
        fetched = await have.fetch()
        assert isinstance(fetched, Fetched)
        Path(have.wish.path).write_bytes(b"old")
        await have.publisher.publish(fetched.part_path, have.wish.path)

    assert fetched.bytes == Path(have.wish.path).stat().st_size


@both
async def test_file_that_can_not_be_published_stops_the_run(hands: Having, tmp_path: Path) -> None:
    """
    Trouble with the run directory is an error that says so, and no outcome of one job.
    """
    async with hands(tmp_path) as have:
        with pytest.raises(RunDirError):
            await have.publisher.publish(f"{tmp_path}/none.part", f"{tmp_path}/none.mp4")
