"""Each store keeps the same promises: a folder, S3 and Google's over loopback, memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest

from runner.errors import ObjectStoreError, UsageError
from runner.objects import open_store
from runner.objects.base import FolderStore, ObjectExists, ObjectInfo, ObjectMissing, ObjectStore
from runner.objects.cloud import PART_BYTES, CloudStore
from tests.objects.s3 import FaultyS3


@pytest.fixture(params=["folder", "s3", "gs", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(f"{tmp_path.as_uri()}/a%20b")
    if request.param == "memory":
        from obstore.store import MemoryStore

        return CloudStore(MemoryStore(), "memory")
    environ: Mapping[str, str] = request.getfixturevalue("s3_environ")
    return open_store(f"{request.param}://videos/{uuid4().hex}", environ)


def test_an_object_is_created_once(store: ObjectStore) -> None:
    """The second creation fails and changes nothing; so does one after an overwriting put."""
    store.create("log/0", b"first")

    with pytest.raises(ObjectExists):
        store.create("log/0", b"second")
    assert b"first" == store.get("log/0")
    store.put("log/0", b"third")
    with pytest.raises(ObjectExists):
        store.create("log/0", b"fourth")
    assert b"third" == store.get("log/0")


def test_one_of_many_creators_wins(store: ObjectStore) -> None:
    """Of eight at the same time, one creates the object, and its bytes are there."""

    def create(number: int) -> int | None:
        try:
            store.create("race", str(number).encode())
        except ObjectExists:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(8)) if number is not None]

    assert [store.get("race")] == [str(winner).encode() for winner in winners]


def test_objects_are_listed_below_a_folder_by_name(store: ObjectStore) -> None:
    """A folder is whole segments, at any depth; `after` leaves out what comes before."""
    for name in ("b/2", "b/10", "b/c/1", "bb/1", "a"):
        store.put(name, name.encode())

    assert ["a", "b/10", "b/2", "b/c/1", "bb/1"] == [found.name for found in store.list()]
    assert ["b/10", "b/2", "b/c/1"] == [found.name for found in store.list("b")]
    assert [ObjectInfo("b/2", 3), ObjectInfo("b/c/1", 5)] == store.list("b", after="b/10")
    assert [] == store.list("nothing")


def test_missing_objects(store: ObjectStore) -> None:
    """Reading one fails by name; deleting one is not an error, and deletes."""
    for read in (store.get, store.head, lambda name: list(store.read(name))):
        with pytest.raises(ObjectMissing):
            read("nothing")
    store.delete("nothing")
    store.put("x", b"1")
    store.delete("x")
    with pytest.raises(ObjectMissing):
        store.head("x")


def test_files_are_uploaded_whole(store: ObjectStore, tmp_path: Path) -> None:
    """A file that goes in parts arrives byte by byte, in place of what was there."""
    source = tmp_path / "big.mp4"
    source.write_bytes(os.urandom(PART_BYTES + 1))
    store.put("v/big.mp4", b"old")

    store.put("v/big.mp4", source, content_type="video/mp4", metadata={"sha256": "ab"})

    assert source.read_bytes() == store.get("v/big.mp4") == b"".join(store.read("v/big.mp4"))
    kept = None if store.url.startswith("file:") else "ab"
    assert ObjectInfo("v/big.mp4", PART_BYTES + 1, kept) == store.head("v/big.mp4")
    with pytest.raises(FileNotFoundError):
        store.put("v/none", tmp_path / "none")


def test_a_presigned_address_serves_the_object(s3_environ: Mapping[str, str]) -> None:
    """Anybody with the address gets the bytes, with the type they were given."""
    store = open_store("s3://videos/signed", s3_environ)
    store.put("a b.png", b"pixels", content_type="image/png")

    with urlopen(store.presign("a b.png", 60), timeout=10) as answer:
        assert (b"pixels", "image/png") == (answer.read(), answer.headers["Content-Type"])


def test_a_folder_has_no_web_addresses(tmp_path: Path) -> None:
    """What can't be presigned is refused in words."""
    with pytest.raises(UsageError, match="no web address"):
        open_store(tmp_path.as_uri()).presign("a", 60)


def test_a_lost_answer_is_repeated(s3: FaultyS3, s3_environ: Mapping[str, str]) -> None:
    """After the answer of a creation is lost, the object reads as one's own."""
    store = open_store("s3://videos/lost", s3_environ)
    faults = iter(["lost"])
    s3.fault = lambda method, path: next(faults, None)

    with pytest.raises(ObjectExists):
        store.create("a", b"mine")

    assert b"mine" == store.get("a")


def test_refused_credentials_are_named_without_secrets(s3: FaultyS3, s3_environ: Mapping[str, str]) -> None:
    """An expired token is told by its code; nothing of the request is shown."""
    s3.fault = lambda method, path: "403"

    with pytest.raises(ObjectStoreError) as caught:
        open_store("s3://videos/run", s3_environ).create("a", b"")

    assert "s3://videos/run refuses the credentials (ExpiredToken, 403 Forbidden)" == caught.value.message
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(("scheme", "variable"), [("s3", "AWS_ENDPOINT_URL"), ("gs", "GOOGLE_APPLICATION")])
def test_a_bucket_that_does_not_exist(s3_environ: Mapping[str, str], scheme: str, variable: str) -> None:
    """Writing and reading say so; it is not taken for a missing object."""
    store = open_store(f"{scheme}://nobodys-bucket/run", s3_environ)

    for call in (
        lambda: store.create("a", b""),
        lambda: store.put("a", b""),
        lambda: store.get("a"),
        store.list,
    ):
        with pytest.raises(ObjectStoreError, match=f"{scheme}://nobodys-bucket/run does not exist") as caught:
            call()
        assert variable in (caught.value.hint or "")


@pytest.mark.parametrize("content", [None, "", "{"])
def test_google_credentials_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """A file of keys that is absent or damaged is not taken for a network that is down."""
    keys = tmp_path / "keys.json"
    if content is not None:
        keys.write_text(content)

    with pytest.raises(ObjectStoreError, match="can't be used as it is configured") as caught:
        open_store("gs://videos", {"GOOGLE_APPLICATION_CREDENTIALS": str(keys)})
    assert "GOOGLE_APPLICATION_CREDENTIALS" in (caught.value.hint or "")


def test_azure_addresses_have_plain_names() -> None:
    """An address whose signature Azure would refuse is not given out."""
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "clips", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}
    store = open_store("az://videos/run-1", environ)

    assert store.presign("05/a~b.mp4", 60).startswith(
        "https://clips.blob.core.windows.net/videos/run-1/05/a~b.mp4?"
    )
    for name in ("a b.mp4", "小猫.mp4", "a%20b.mp4"):
        with pytest.raises(UsageError, match="can't sign"):
            store.presign(name, 60)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys, and without a machine that gives some, the error names the variables."""
    # The address that machines of a cloud ask for credentials, here one that refuses connections.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ObjectStoreError, match="no credentials|can't be reached") as caught:
        open_store("s3://videos/run", {"AWS_REGION": "us-east-1"}).get("a")
    assert caught.value.hint is not None


@pytest.mark.slow
def test_a_server_that_is_not_there(s3_environ: Mapping[str, str]) -> None:
    """A refused connection is an error in a few tries."""
    environ = {**s3_environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}

    with pytest.raises(ObjectStoreError, match="s3://videos can't be reached"):
        open_store("s3://videos/", environ).get("a")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "s3://",
        "file://host/a",
        "file:relative",
        "memory:///",
        "s3://u:pw@b",
        "az://c?sig=pw",
        "s3://[b",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """Every URL that leads to no store is refused, and what may be a key in it is not shown."""
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "pw" not in caught.value.message


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/..", ".hidden"])
def test_names_stay_below_the_folder(tmp_path: Path, name: str) -> None:
    """A name that leads elsewhere is a bug of the caller, and nothing is written."""
    with pytest.raises(ValueError, match="is not the name of an object"):
        open_store(tmp_path.as_uri()).create(name, b"")
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """What the file system refuses is an error of the store, with the path."""
    (tmp_path / "a").write_text("")

    with pytest.raises(ObjectStoreError, match="a/b can't be used: "):
        open_store((tmp_path / "a").as_uri()).create("b", b"")


def test_leftovers_of_a_crash_are_not_objects(tmp_path: Path) -> None:
    """A temporary file is not listed."""
    (tmp_path / f".{uuid4().hex}.tmp").write_bytes(b"half")

    assert [] == open_store(tmp_path.as_uri()).list()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_file_is_durable_before_its_name_and_the_name_before_the_answer(tmp_path: Path) -> None:
    """The order of the system calls: bytes synced, linked, folder synced."""
    code = "import sys; from runner.objects import open_store; open_store(sys.argv[1]).create('f/a', b'x')"
    trace = tmp_path / "trace"
    subprocess.run(
        [
            *("strace", "-f", "-y", "-e", "trace=fsync,link,linkat", "-o", str(trace)),
            *(sys.executable, "-c", code, (tmp_path / "s").as_uri()),
        ],
        check=True,
        timeout=60,
    )
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]

    steps = [
        "link" if "link" in line.split("(")[0] else "file" if ".tmp>" in line else "folder" for line in calls
    ]
    assert ["file", "link", "folder"] == steps[:3]
    assert any(f"{tmp_path}/s>" in line for line in calls[3:])


def test_clear_words_without_the_extra(tmp_path: Path) -> None:
    """Where obstore is not installed, the message says which extra has it."""
    code = (
        "import sys; sys.modules['obstore'] = None; sys.modules['obstore.exceptions'] = None\n"
        "from runner.objects import open_store\n"
        "try: open_store('s3://b/x')\n"
        "except Exception as error: print(error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd(), timeout=60
    )
    assert "'.[cloud]'" in done.stdout


def test_a_folder_that_vanishes_while_it_is_written_is_not_a_missing_object(tmp_path: Path) -> None:
    """Whoever writes gets an error of the store, after which the same can be tried again."""
    broken = tmp_path / "broken"
    broken.symlink_to(tmp_path / "nowhere" / "else")

    with pytest.raises(ObjectStoreError):
        FolderStore(str(broken)).create("a", b"")
    with pytest.raises(ObjectMissing):
        FolderStore(str(broken)).get("a")
