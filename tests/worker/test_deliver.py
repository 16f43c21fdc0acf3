"""One job's delivery: which addresses are tried, what is kept of them, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from runner.assets.request import PartMetadata, part_path
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind
from runner.errors import ObjectStoreError
from runner.worker.deliver import delivery_hints
from tests.engine.answers import UNKNOWN
from tests.worker.deliveries import (
    FRAME,
    GONE,
    OTHER_VIDEO,
    VIDEO,
    Setting,
    task,
)
from tests.worker.fakes import WALL_AT_0


async def test_video_is_saved_with_the_end_of_its_job(tmp_path: Path) -> None:
    """
    One save tells that the job succeeded, with which file, when, and how long the download took.
    """
    setting = Setting(tmp_path)

    job = await setting.deliver(task(VIDEO))

    (asset,) = setting.store.saved_assets
    assert State.SUCCEEDED is job.state
    assert (AssetKind.VIDEO, "assets/a.mp4", VIDEO) == (asset.kind, asset.path, setting.content(asset.path))
    assert (2.0, WALL_AT_0 + 102.0, None) == (job.download_s, job.finished_at, job.error)
    assert (0, []) == (job.polls, setting.queries.keys)


@dataclass
class FakeUploads:
    """Uploads, which can fail."""

    run_dir: Path
    error: ObjectStoreError | None = None
    uploaded: dict[str, str] = field(default_factory=dict)

    async def upload(self, path: str, asset: Asset) -> Asset:
        if self.error is not None:
            raise self.error
        url = f"s3://bucket/{asset.path}"
        self.uploaded[url] = Path(path).read_text()
        return replace(asset, url=url)

    async def has(self, asset: Asset) -> bool:
        return asset.url in self.uploaded


async def test_upload_comes_before_success_and_the_file_goes_after_it(tmp_path: Path) -> None:
    """
    A job succeeds with the URL of its upload, and its file is deleted only once that is on disk.
    """
    setting = Setting(tmp_path)
    uploads = FakeUploads(tmp_path)
    setting.delivery = replace(setting.delivery, uploader=uploads, keeps_local=False)

    seen: list[str] = []

    class Commit(asyncio.Event):
        async def wait(self) -> Literal[True]:
            seen.append(setting.content("assets/a.mp4"))
            return True

    setting.store.is_durable = Commit()

    job = await setting.deliver(task(VIDEO))

    (asset,) = setting.store.saved_assets
    assert (State.SUCCEEDED, {asset.url: VIDEO}) == (job.state, uploads.uploaded)
    assert [VIDEO] == seen
    assert not (tmp_path / "assets/a.mp4").exists()


async def test_upload_that_fails_leaves_the_job_and_its_file(tmp_path: Path) -> None:
    """
    A later process finds the file that was not uploaded, and uploads it without asking the API for anything.
    """
    setting = Setting(tmp_path, answers=[UNKNOWN])
    uploads = FakeUploads(tmp_path, ObjectStoreError("down"))
    setting.delivery = replace(setting.delivery, uploader=uploads)
    with pytest.raises(ObjectStoreError, match="down"):
        await setting.delivery.deliver(setting.job, task(VIDEO).task)
    assert ([], State.DOWNLOADING) == (setting.store.saved, setting.job.state)

    uploads.error = None
    job = await setting.deliver(None)

    assert (State.SUCCEEDED, []) == (job.state, setting.queries.keys)
    assert ["s3://bucket/assets/a.mp4"] == [asset.url for asset in setting.store.saved_assets]


async def test_upload_of_an_earlier_process_is_not_made_again(tmp_path: Path) -> None:
    """
    A job whose video is uploaded already, and is not here any more, needs no download; one whose upload is gone does.
    """
    for is_there in (True, False):
        setting = Setting(tmp_path, answers=[task(VIDEO)])
        uploads = FakeUploads(tmp_path, uploaded={"s3://bucket/old": VIDEO} if is_there else {})
        setting.delivery = replace(setting.delivery, uploader=uploads, keeps_local=False)
        setting.store.is_durable.set()
        setting.store.assets = (
            Asset(AssetKind.VIDEO, "assets/a.mp4", 4, "0" * 64, "video/mp4", url="s3://bucket/old"),
        )

        assert State.SUCCEEDED is (await setting.deliver(None)).state

        assert ([] if is_there else [VIDEO]) == setting.urls


async def test_first_download_of_a_process_begins_anew(tmp_path: Path) -> None:
    """
    What the store knows of parts is asked for only where there may be one of this task: after a failed address.
    """
    setting = Setting(tmp_path, {VIDEO: GONE, OTHER_VIDEO: "video/mp4"})
    setting.store.parts = {"video": {"total_bytes": 7, "validator": None}}

    await setting.deliver(task(VIDEO, OTHER_VIDEO))

    assert [None, PartMetadata(1000, '"tag"')] == [request.metadata for request in setting.downloads.asked]


async def test_download_of_an_earlier_process_is_gone_on_with(tmp_path: Path) -> None:
    """
    A later run asks for the task, and trusts the part on disk as far as the store knows of it.
    """
    setting = Setting(tmp_path, answers=[task(VIDEO)])
    setting.store.parts = {"video": {"total_bytes": 7, "validator": '"old"'}}

    job = await setting.deliver(None)

    assert [PartMetadata(7, '"old"')] == [request.metadata for request in setting.downloads.asked]
    assert (State.SUCCEEDED, 1) == (job.state, job.polls)


async def test_key_that_a_host_repeats_is_not_saved(tmp_path: Path) -> None:
    """
    A validator that contains the key is not kept, so the download can't be resumed with it.
    """
    setting = Setting(tmp_path)
    setting.downloads.etag = '"own-1"'

    await setting.deliver(task(VIDEO))

    assert {"video": {"total_bytes": 1000, "validator": None}} == setting.store.parts


async def test_download_carries_the_key_of_its_task(tmp_path: Path) -> None:
    """
    The gateway's own route asks for the key that made the task.
    """
    setting = Setting(tmp_path)

    await setting.deliver(task(VIDEO))

    assert ["own"] == [request.key for request in setting.downloads.asked]


@pytest.mark.parametrize(
    ("media_type", "path"),
    [("video/mp4", "assets/a.mp4"), ("video/quicktime", "assets/a.mov"), ("video/webm", "assets/a.mp4")],
)
async def test_file_is_named_by_what_it_is(media_type: str, path: str, tmp_path: Path) -> None:
    """
    Another kind of video has its own ending; one that is not known has that of what was expected.
    """
    setting = Setting(tmp_path, {VIDEO: media_type})

    await setting.deliver(task(VIDEO))

    assert [path] == [asset.path for asset in setting.store.saved_assets]
    assert VIDEO == setting.content(path)


async def test_large_run_spreads_its_files(tmp_path: Path) -> None:
    """
    Files are in 256 folders where the run says so, parts included, and their progress is found there.
    """
    setting = Setting(tmp_path, sharded=True)

    await setting.deliver(task(VIDEO))

    (asset,) = setting.store.saved_assets
    assert 3 == len(Path(asset.path).parts)
    assert [f"{tmp_path}/{asset.path}"] == [request.path for request in setting.downloads.asked]
    Path(part_path(f"{tmp_path}/{asset.path}")).write_bytes(b"12345")
    assert (5, 1000) == setting.delivery.progress(setting.job)


async def test_progress_before_the_first_byte(tmp_path: Path) -> None:
    """
    Nothing is on disk, and nothing is known of the whole, whatever an older download was.
    """
    setting = Setting(tmp_path)
    assert (0, None) == setting.delivery.progress(setting.job)

    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/a.mp4.part").write_bytes(b"123")
    assert (3, None) == setting.delivery.progress(setting.job)


async def test_last_frame_is_fetched_where_it_was_asked_for(tmp_path: Path) -> None:
    """
    The job has two files, the picture under the ending that its type has.
    """
    files = {VIDEO: "video/mp4", FRAME: "image/jpeg"}
    setting = Setting(tmp_path, files, request={"return_last_frame": True})

    job = await setting.deliver(task(VIDEO, frames=[FRAME]))

    assert ["assets/a.mp4", "assets/a.last_frame.jpg"] == [asset.path for asset in setting.store.saved_assets]
    assert (State.SUCCEEDED, ()) == (job.state, job.warnings)
    assert (VIDEO, FRAME) == (setting.content("assets/a.mp4"), setting.content("assets/a.last_frame.jpg"))


@pytest.mark.parametrize("request_", [{}, {"return_last_frame": False}])
async def test_last_frame_that_nobody_asked_for_is_left(request_: Mapping[str, Any], tmp_path: Path) -> None:
    """
    An address in the answer alone is no reason to fetch it.
    """
    setting = Setting(tmp_path, request=request_)

    await setting.deliver(task(VIDEO, frames=[FRAME]))

    assert [VIDEO] == setting.urls


async def test_last_frame_that_the_api_does_not_name_is_a_warning(tmp_path: Path) -> None:
    """
    The gateway may not pass it on; the video was paid for and is there.
    """
    setting = Setting(tmp_path, answers=[task(VIDEO)], request={"return_last_frame": True})

    job = await setting.deliver(task(VIDEO))

    assert State.SUCCEEDED is job.state
    assert ("the last frame was requested, and the API named none",) == job.warnings
    assert [AssetKind.VIDEO] == [asset.kind for asset in setting.store.saved_assets]


async def test_last_frame_that_can_not_be_had_leaves_the_job_undelivered(tmp_path: Path) -> None:
    """
    A later run tries again, and what was fetched by now is kept for it.
    """
    answer = task(VIDEO, frames=[FRAME])
    setting = Setting(
        tmp_path, {VIDEO: "video/mp4", FRAME: GONE}, [answer], request={"return_last_frame": True}
    )

    job = await setting.deliver(answer)

    assert (State.UNDELIVERED, GONE.failure, None) == (job.state, job.error, job.download_s)
    assert [AssetKind.VIDEO] == [asset.kind for asset in setting.store.saved_assets]


async def test_job_is_judged_by_what_this_process_has_asked_for(tmp_path: Path) -> None:
    """
    What a submission of this process has kept of its request serves its delivery too.
    """
    setting = Setting(tmp_path, {VIDEO: "video/mp4", FRAME: "image/png"})
    setting.job.delivery_hints = delivery_hints(
        '{"return_last_frame": true, "seconds": 5, "prompt": "a kitten"}'
    )

    await setting.deliver(task(VIDEO, frames=[FRAME]))

    assert {"return_last_frame": True, "seconds": 5} == setting.job.delivery_hints
    assert [VIDEO, FRAME] == setting.urls


async def test_video_that_is_not_as_asked_is_kept_with_a_warning(tmp_path: Path) -> None:
    """
    It is paid for, so a difference is worth a word and no more.
    """
    setting = Setting(tmp_path, request={"seconds": 10})

    job = await setting.deliver(task(VIDEO))

    assert State.SUCCEEDED is job.state
    (warning,) = job.warnings
    assert warning.startswith("the video is 5")


async def test_asset_that_is_whole_already_is_not_fetched_again(tmp_path: Path) -> None:
    """
    A later run takes what an earlier one has finished, each kind for itself, and fetches the rest.
    """
    files = {FRAME: "image/png"}
    setting = Setting(tmp_path, files, [task(VIDEO, frames=[FRAME])], {"return_last_frame": True})
    setting.keep(AssetKind.VIDEO, "assets/a.mp4", "kept")

    await setting.deliver(None)

    assert [FRAME] == setting.urls
    assert ["assets/a.mp4", "assets/a.last_frame.png"] == [asset.path for asset in setting.store.saved_assets]


async def test_asset_that_is_no_longer_whole_is_fetched_again(tmp_path: Path) -> None:
    """
    A file with other bytes than the store knows of is not the asset.
    """
    setting = Setting(tmp_path, answers=[task(VIDEO)])
    setting.keep(AssetKind.VIDEO, "assets/a.mp4", "tpek")

    await setting.deliver(None)

    assert VIDEO == setting.content("assets/a.mp4")
