"""Uploads that are verified, and objects by their URLs."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from runner.errors import ObjectStoreError, UsageError
from runner.objects import Content, Objects, object_url, open_store, require_uploads, upload
from runner.objects.base import FolderStore, ObjectInfo

DATA = b"a video" * 1000
CONTENT = Content(len(DATA), sha256(DATA).hexdigest())
NAMES = ("05/Sky~b728.1f3a.mp4", "小猫-1 é%41.mp4", "a+b&c=d'e.mp4")


class WrongStore(FolderStore):
    """A store that keeps something else than it was given."""

    def __init__(self, folder: str, kept: ObjectInfo) -> None:
        super().__init__(folder)
        self._kept = kept

    def head(self, name: str) -> ObjectInfo:
        return self._kept._replace(name=name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["s3", "folder"])
def test_an_upload_is_found_by_its_url(
    place: str, name: str, tmp_path: Path, s3_environ: Mapping[str, str]
) -> None:
    """Whatever is in its name, the URL alone leads to the object; another content is told by size and digest."""
    root = "s3://videos/located x" if place == "s3" else f"{tmp_path.as_uri()}/a%20b"
    source = tmp_path / "a.mp4"
    source.write_bytes(DATA)

    url = upload(open_store(root, s3_environ), name, source, CONTENT, "video/mp4")

    objects = Objects(s3_environ)
    store, found = objects.at(url)
    assert DATA == store.get(found)
    assert objects.holds(url, CONTENT, is_read=True)
    for other in (Content(CONTENT.size + 1, CONTENT.sha256), Content(CONTENT.size, "0" * 64)):
        assert not objects.holds(url, other, is_read=True)
    assert not objects.holds(f"{url}x", CONTENT)


@pytest.mark.parametrize("kept", [ObjectInfo("", 1), ObjectInfo("", CONTENT.size, "0" * 64)])
def test_what_did_not_arrive_is_not_uploaded(kept: ObjectInfo, tmp_path: Path) -> None:
    """A store that has another size, or another digest, than it was given is no place for a video; nor for a run."""
    source = tmp_path / "a.mp4"
    source.write_bytes(DATA)
    store = WrongStore(str(tmp_path / "store"), kept)

    with pytest.raises(ObjectStoreError, match="is not what was uploaded"):
        upload(store, "a.mp4", source, CONTENT, "video/mp4")
    with pytest.raises(ObjectStoreError, match="does not have what was just written"):
        require_uploads(store)


@pytest.mark.parametrize(
    "url", ["file:///srv/..%2Fpasswd", "file:///srv/.ssh", "s3://bucket", "s3://bucket/a/../b", "sky.mp4"]
)
def test_a_url_that_names_no_object_is_refused(url: str) -> None:
    """URLs of foreign results lead to nothing but objects."""
    with pytest.raises(UsageError):
        Objects({}).at(url)


def test_a_folders_urls_are_encoded(tmp_path: Path) -> None:
    """The URL of a file can be opened by any program."""
    assert f"{tmp_path.as_uri()}/a%20%25.mp4" == object_url(FolderStore(str(tmp_path)), "a %.mp4")
