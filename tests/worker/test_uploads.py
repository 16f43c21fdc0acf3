"""Uploads: each content once, within limits, durable; what the asset library may answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.core.model import Json
from runner.core.settings import Inputs
from runner.errors import FileChanged, ObjectStoreError, UploadError
from runner.gateway.library import LibraryAsset
from runner.objects.base import FolderStore
from runner.store.files import Upload, UploadState
from runner.worker.uploads import (
    MISSES,
    InputUploader,
    LibraryTarget,
    ObjectTarget,
    Reference,
    Save,
    Transfers,
)


def reference(name: str) -> dict[str, Json]:
    return {"$file": f"/{name}.png", "sha256": name * 64, "media_type": "image/png", "bytes": 3}


class FakeClock:
    """Time that passes only in sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class FakeStore:
    """Remembers in which order states were saved and made durable."""

    def __init__(self) -> None:
        self.saved: list[Upload] = []
        self.durable_count = 0

    def save_upload(self, upload: Upload) -> int:
        self.saved.append(upload)
        return len(self.saved)

    async def durable(self, number: int) -> None:
        await asyncio.sleep(0)
        self.durable_count = max(self.durable_count, number)


class FakeTarget:
    """Takes every file but those that a test names."""

    name = "s3://bucket"

    def __init__(self, transfers: Transfers, failures: dict[str, Exception] | None = None) -> None:
        self.calls: list[str] = []
        self.most_active = 0
        self._active = 0
        self._transfers = transfers
        self._failures = failures or {}

    async def upload(self, reference: Reference, known: Upload, save: Save) -> Upload:
        async with self._transfers.slot():
            self.calls.append(reference["sha256"][0])
            self._active += 1
            self.most_active = max(self.most_active, self._active)
            for _ in range(3):
                await asyncio.sleep(0)
            self._active -= 1
        if failure := self._failures.get(reference["sha256"][0]):
            raise failure
        upload = replace(known, state=UploadState.READY, address="x")
        await save(upload)
        return upload

    def address(self, upload: Upload, seconds: float) -> str:
        return upload.address


def transfers(clock: FakeClock, *, at_once: int = 4, per_s: float = 1000.0) -> Transfers:
    return Transfers(clock, at_once=at_once, per_s=per_s)


async def test_each_content_is_uploaded_once_and_durable() -> None:
    """Whatever asks for a file, at once or again, it is uploaded once, and its state is on disk when that returns."""
    clock, store = FakeClock(), FakeStore()
    target = FakeTarget(transfers(clock))
    uploader = InputUploader(target, store, clock, {})

    async def ask(*names: str) -> None:
        await uploader.upload_all(reference(name) for name in names)
        assert not any(uploader.needs(reference(name)) for name in names)
        durable = {upload.digest[0] for upload in store.saved[: store.durable_count]}
        assert durable.issuperset(names)

    await asyncio.gather(ask("a", "b", "a"), ask("b", "c"), ask("a"))
    await ask("a", "c")

    assert ["a", "b", "c"] == sorted(target.calls)


async def test_what_an_earlier_process_did_is_not_done_again() -> None:
    """A ready upload is used until it expires; any other state is continued."""
    clock = FakeClock()
    clock.time = 100.0
    known = {
        name * 64: Upload(name * 64, "s3://bucket", state, "x", expires_at)
        for name, state, expires_at in (
            ("a", UploadState.READY, None),
            ("b", UploadState.READY, 101.0),
            ("c", UploadState.READY, 99.0),
            ("d", UploadState.REVIEW, None),
            ("e", UploadState.REFUSED, None),
        )
    }
    target = FakeTarget(transfers(clock))

    await InputUploader(target, FakeStore(), clock, known).upload_all(map(reference, "abcde"))

    assert ["c", "d", "e"] == sorted(target.calls)


async def test_limits() -> None:
    """No more uploads are in progress than the limit says, and they are spaced by the rate."""
    clock = FakeClock()
    target = FakeTarget(transfers(clock, at_once=2, per_s=10.0))

    await InputUploader(target, FakeStore(), clock, {}).upload_all(map(reference, "abcdef"))

    assert 2 == target.most_active
    assert clock.time > 0.49


async def test_failures() -> None:
    """A file that changed is noted and the others continue; a target that fails ends all."""
    clock, changed = FakeClock(), FileChanged("b has changed")
    uploader = InputUploader(FakeTarget(transfers(clock), {"b": changed}), FakeStore(), clock, {})
    await uploader.upload_all(map(reference, "abc"))
    assert {"b" * 64: changed} == uploader.changed
    assert {"a" * 64, "c" * 64} == set(uploader.done)

    failing = FakeTarget(transfers(clock, at_once=1), {"a": ObjectStoreError("no")})
    with pytest.raises(ObjectStoreError):
        await InputUploader(failing, FakeStore(), clock, {}).upload_all(map(reference, "abcdef"))
    assert len(failing.calls) < 6


async def test_objects_are_named_by_their_digest(tmp_path: Path) -> None:
    """What the store has in full is not sent again, and an object of another length is replaced."""
    clock, objects, read = FakeClock(), FolderStore(str(tmp_path)), []

    def read_file(ref: Reference) -> bytes:
        read.append(ref["sha256"][0])
        return b"abc"

    inputs = Inputs(upload="file:///x", public_url="https://cdn.example.com/", expires_s=60.0)
    target = ObjectTarget(objects, inputs, transfers(clock), clock, read_file)
    objects.put("a" * 64 + ".png", b"abc")
    objects.put("b" * 64 + ".png", b"cut"[:2])
    uploader = InputUploader(target, FakeStore(), clock, {})

    await uploader.upload_all(map(reference, "abc"))

    assert ["b", "c"] == sorted(read)
    assert b"abc" == objects.get("b" * 64 + ".png")
    upload = uploader.done["c" * 64]
    assert upload.expires_at is not None
    assert 60.0 <= upload.expires_at < 61.0
    assert "https://cdn.example.com/" + "c" * 64 + ".png" == target.address(upload, 1e9)


class FakeLibrary:
    """A library whose answers a test gives, one after the other; the last one is repeated."""

    def __init__(self, asset_ids: list[str | None], found: list[LibraryAsset | None]) -> None:
        self.uploads: list[str] = []
        self._asset_ids = asset_ids
        self._found = found

    async def upload(self, name: str, content: bytes, media_type: str) -> str:
        assert (b"abc", "image/png") == (content, media_type)
        self.uploads.append(name)
        return f"task-{len(self.uploads)}"

    async def asset_id(self, task_id: str) -> str | None:
        return self._asset_ids.pop(0) if len(self._asset_ids) > 1 else self._asset_ids[0]

    async def find(self, **fields: str) -> LibraryAsset | None:
        if "name" in fields:
            return None
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


REVIEWED, APPROVED, REFUSED = (LibraryAsset("7", state, "a face") for state in (None, True, False))


@pytest.mark.parametrize(
    ("asset_ids", "found", "uploads", "expected"),
    [
        (["", "7"], [REVIEWED, REVIEWED, APPROVED], 1, (UploadState.READY, "asset://7")),
        (["7"], [REFUSED], 1, (UploadState.REFUSED, "asset://7: a face")),
        ([None, "7"], [APPROVED], 2, (UploadState.READY, "asset://7")),
        (["7"], [None] * MISSES + [APPROVED], 2, (UploadState.READY, "asset://7")),
        (["7"], [None] * (MISSES - 1) + [APPROVED], 1, (UploadState.READY, "asset://7")),
    ],
    ids=["approved", "refused", "task unknown", "asset gone", "asset late"],
)
async def test_answers_of_the_library(
    asset_ids: list[str | None],
    found: list[LibraryAsset | None],
    uploads: int,
    expected: tuple[UploadState, str],
) -> None:
    """A file goes from its task to its asset to its review; what the library lost is uploaded again once."""
    clock, store, library = FakeClock(), FakeStore(), FakeLibrary(asset_ids, found)
    target = LibraryTarget(
        library, transfers(clock), clock, lambda _: b"abc", interval_s=2.5, timeout_s=100.0
    )
    uploader = InputUploader(target, store, clock, {})

    await uploader.upload_all([reference("a")])

    assert ["a-" + "a" * 16 + ".png"] * uploads == library.uploads
    upload = uploader.done["a" * 64]
    assert expected == (upload.state, upload.address)
    assert UploadState.PROCESSING is store.saved[0].state


async def test_a_review_without_an_end() -> None:
    """A file that is never decided on stops the run after the time that a task may take."""
    clock = FakeClock()
    target = LibraryTarget(
        FakeLibrary(["7"], [REVIEWED]),
        transfers(clock),
        clock,
        lambda _: b"abc",
        interval_s=2.5,
        timeout_s=100.0,
    )

    with pytest.raises(UploadError, match="has not decided on /a.png for 1m 40s"):
        await InputUploader(target, FakeStore(), clock, {}).upload_all([reference("a")])
    assert 100.0 <= clock.time < 110.0
