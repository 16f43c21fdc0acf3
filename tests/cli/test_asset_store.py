"""`--assets`: videos in an object store, what is left here, and every command that reads them from there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from runner.core.filenames import file_stem
from runner.objects import Objects, open_store
from tests.cli.command import CommandResult, runner
from tests.objects.s3 import FaultyS3

MANIFEST = """
version: 1
name: kittens
limits: {downloads: 2}
retry: {attempts: 2, base: 10ms, cap: 20ms}
jobs:
  - id: Job-${n}
    repeat: 4
    request: {model: seedance-1-5-pro-251215, prompt: 'kitten ${n}', seconds: 4, size: 480p}
  - id: framed
    request: {model: seedance-1-5-pro-251215, prompt: last, seconds: 4, size: 480p, return_last_frame: true}
"""
SCENARIO = "version: 1\ngenerate_s: [0.02, 0.05]\n"
FILES = 6


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """
    A run that uploaded its assets, to be copied by each test.

    Attributes:
        requests: What the server was asked for meanwhile.
        most_files: The most files of assets that were on this machine at any of these requests.
    """

    run_dir: Path
    result: CommandResult
    requests: Sequence[tuple[str, str]] = ()
    most_files: int = 0


def finish(folder: Path, store: str) -> CommandResult:
    """Run the manifest in a folder of its own."""
    folder.joinpath("m.yaml").write_text(MANIFEST)
    folder.joinpath("scenario.yaml").write_text(SCENARIO)
    with contextlib.chdir(folder):
        result = run("--assets", store)
    # Else a copy would be refused, since its original is still there.
    (folder / "out/.lock").unlink()
    return result


@pytest.fixture(scope="module")
def finished_in_bucket(
    server: tuple[FaultyS3, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    """A run whose assets are in a bucket."""
    folder, counts = tmp_path_factory.mktemp("bucket"), [0]

    def look(_method: str, path: str) -> None:
        if "probe" not in path:
            counts.append(sum(each.is_file() for each in (folder / "out/assets").rglob("*")))

    server[0].reset()
    server[0].fault = look
    with pytest.MonkeyPatch.context() as patched:
        for name, value in server[1].items():
            patched.setenv(name, value)
        result = finish(folder, "s3://videos/kittens/")
    return FinishedRun(folder / "out", result, tuple(server[0].requests), max(counts))


@pytest.fixture
def in_bucket(folder: Path, s3: FaultyS3, finished_in_bucket: FinishedRun) -> FinishedRun:
    """Have a copy of the run in the directory out."""
    shutil.copytree(finished_in_bucket.run_dir, "out")
    return finished_in_bucket


@pytest.fixture(scope="module")
def finished_in_folder(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run whose assets are in a folder, beside its directory."""
    folder = tmp_path_factory.mktemp("folder")
    return FinishedRun(folder / "out", finish(folder, (folder / "store").as_uri()))


@pytest.fixture
def in_folder(folder: Path, finished_in_folder: FinishedRun) -> FinishedRun:
    """Have a copy of the run in the directory out, and its assets in the folder store."""
    shutil.copytree(finished_in_folder.run_dir, "out")
    return finished_in_folder


def run(*options: object) -> CommandResult:
    """Run the manifest with the simulator, in the directory out."""
    return runner("run", "m.yaml", "-o", "out", "--simulate", "--scenario", "scenario.yaml", *options)


def lines(run_dir: Path = Path("out")) -> list[dict[str, Any]]:
    """Read the results."""
    return [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]


def assets(run_dir: Path = Path("out")) -> list[dict[str, Any]]:
    """Read the assets of all jobs."""
    return [asset for line in lines(run_dir) for asset in line["assets"]]


def local_files() -> list[str]:
    """List the files of assets in the run directory."""
    return sorted(path.name for path in Path("out/assets").rglob("*") if path.is_file())


def require_whole(found: list[dict[str, Any]], environ: Mapping[str, str]) -> None:
    """Check that the objects of assets hold what the results say, byte for byte."""
    objects = Objects(environ)
    for asset in found:
        store, name = objects.at(asset["url"])
        content = store.get(name)
        assert (asset["bytes"], asset["sha256"]) == (len(content), sha256(content).hexdigest())


def test_videos_go_to_a_bucket(in_bucket: FinishedRun, server: Any, s3: FaultyS3) -> None:
    """Each job succeeds when its files are in the bucket, with type and digest; none stays here, and no more is to be done."""
    assert (0, []) == (in_bucket.result.exit_code, local_files())
    assert "videos   s3://videos/kittens" in in_bucket.result.stderr
    found = assets()
    assert FILES == len(found)
    assert all(re.fullmatch(r"s3://videos/kittens/[^?/]+", asset["url"]) for asset in found)
    for asset in found:
        path = asset["url"].removeprefix("s3:/")
        # A PUT, and then a look at what is there.
        assert [("PUT", path), ("HEAD", path)] == [each for each in in_bucket.requests if each[1] == path]
    # Two downloads at once, and the last frame of one.
    assert 1 <= in_bucket.most_files <= 3
    require_whole(found, server[1])
    store = open_store("s3://videos/kittens", server[1])
    assert {asset["sha256"] for asset in found} == {store.head(each.name).sha256 for each in store.list()}
    s3.requests.clear()

    assert "nothing to do, all 5 jobs succeeded" in run("--assets", "s3://videos/kittens").stderr

    assert [] == s3.requests


def test_a_lost_object_is_found_and_fetched_again(in_bucket: FinishedRun, server: Any, s3: FaultyS3) -> None:
    """Status and `resume --verify` look into the bucket; what is gone or changed there is fetched again, not paid for."""
    gone, changed, *_ = (asset["url"] for asset in assets())
    bucket = open_store("s3://videos", server[1])
    bucket.delete(gone.removeprefix("s3://videos/"))
    bucket.put(
        changed.removeprefix("s3://videos/"), b"x" * assets()[1]["bytes"], metadata={"sha256": "0" * 64}
    )

    assert [gone, changed] == json.loads(runner("status", "out", "--json").stdout)["lost_files"]
    verified = runner("resume", "out", "--verify")

    assert "files that are missing or were changed, to download again: 2 jobs" in verified.stderr
    assert (0, []) == (verified.exit_code, local_files())
    require_whole(assets(), server[1])
    assert len(lines()) == len(Path("out/simulator.jsonl").read_text().splitlines())
    assert [] == json.loads(runner("status", "out", "--json").stdout)["lost_files"]
    s3.fault = lambda method, path: "403"
    blind = runner("status", "out")
    assert 0 == blind.exit_code
    assert "not looked for in the object store" in blind.stdout
    assert "refuses the credentials" in blind.stdout


def test_nothing_is_paid_for_while_the_store_cannot_be_written(folder: Path, s3: FaultyS3) -> None:
    """A run that could not deliver does not begin: a missing bucket, refused credentials, a wrong URL."""
    for url, exit_code, message in (
        ("s3://no-such-bucket/kittens", 3, "does not exist"),
        ("ftp://videos/kittens", 2, "is not the URL of an object store"),
        ("s3://user:secret@videos/kittens", 2, "no user, no query"),
        ("s3://videos/a%20b", 2, "percent sign"),
    ):
        refused = run("--assets", url)
        assert exit_code == refused.exit_code
        assert message in refused.stderr
        assert "secret" not in refused.stderr
    s3.fault = lambda method, path: "403" if method == "PUT" else None
    assert "refuses the credentials (ExpiredToken" in run("--assets", "s3://videos/kittens").stderr
    assert not Path("out/simulator.jsonl").exists()
    assert 2 == runner("run", "m.yaml", "-o", "new", "--simulate", "--keep-local").exit_code


@pytest.mark.slow
def test_credentials_that_expire_stop_the_run(folder: Path, server: Any, s3: FaultyS3) -> None:
    """The store refuses uploads in the middle of a run: that stops, jobs and files wait here, and `resume` uploads them."""
    s3.fault = lambda method, path: "403" if method == "PUT" and "probe" not in path else None
    stopped = run("--assets", "s3://videos/expired", "--in-flight", "2")

    assert 3 == stopped.exit_code
    assert "can't be uploaded: s3://videos/expired refuses the credentials" in stopped.stderr
    kept = local_files()
    assert 1 <= len(kept) <= 3
    assert {"downloading", "submitted", "pending"} >= {line["status"] for line in lines()}
    s3.reset()
    # The videos that are here are not asked for again: the API has forgotten their tasks.
    ledger = Path("out/simulator.jsonl")
    stems = {name.rpartition(".")[0].partition(".")[0] for name in kept}
    forgotten = [line["task_id"] for line in lines() if file_stem(line["job_id"]) in stems]
    kept_lines = [
        text for text in ledger.read_text().splitlines() if not any(task in text for task in forgotten)
    ]
    ledger.write_text("".join(f"{text}\n" for text in kept_lines))

    resumed = runner("resume", "out", "--scenario", "scenario.yaml")

    assert (0, []) == (resumed.exit_code, local_files())
    require_whole(assets(), server[1])
    assert 5 == len(ledger.read_text().splitlines()) + len(forgotten)


@pytest.mark.slow
def test_a_run_goes_on_with_another_store(folder: Path, s3: FaultyS3) -> None:
    """While its store is down a run goes nowhere, until it is told of another one, which it keeps to."""
    run("--assets", "s3://videos/left", "--limit", "1")
    s3.fault = lambda method, path: "403"
    options = ("--scenario", "scenario.yaml")
    assert 3 == runner("resume", "out", *options, "--limit", "1").exit_code

    store = (folder / "store").as_uri()
    assert 6 == runner("resume", "out", *options, "--limit", "1", "--assets", store).exit_code

    assert 0 == runner("resume", "out", *options).exit_code
    assert ["s3://videos/left", *[store] * (FILES - 1)] == [
        asset["url"].rpartition("/")[0] for asset in assets()
    ]


@pytest.mark.slow
def test_files_stay_here_as_well(folder: Path) -> None:
    """With --keep-local the files are in both places; the run keeps to that, until it is asked for something else."""
    store = (folder / "store").as_uri()
    run("--assets", store, "--keep-local", "--limit", "2")
    run()

    assert FILES == len(local_files())
    require_whole(assets(), {})
    run("--assets", store)
    assert [] == local_files()


@pytest.mark.slow
def test_runs_do_not_replace_each_others_videos(in_folder: FinishedRun) -> None:
    """Two runs with the same job ids in one place: each has its own objects."""
    Path("m.yaml").write_text(MANIFEST.replace("kitten ${n}", "puppy ${n}"))
    store = assets()[0]["url"].rpartition("/")[0]
    runner("run", "m.yaml", "-o", "other", "--simulate", "--scenario", "scenario.yaml", "--assets", store)

    require_whole(assets(), {})
    require_whole(assets(Path("other")), {})
    assert len(assets()) - 2 == len(
        {asset["url"] for asset in assets(Path("other"))} - {asset["url"] for asset in assets()}
    )


def test_a_dataset_is_made_from_the_bucket(in_bucket: FinishedRun, server: Any, s3: FaultyS3) -> None:
    """`export` reads what is not here from the bucket, from the run or from its results alone, and names what is missing."""
    Path("elsewhere").mkdir()
    Path("out/results.jsonl").rename("elsewhere/results.jsonl")

    for source, out in (("out", "a"), ("elsewhere/results.jsonl", "b")):
        assert 0 == runner("export", source, out, "--format", "webdataset").exit_code
        (shard,) = Path(out, "data").rglob("*.tar")
        with tarfile.open(shard) as tar:
            members = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".mp4")]
            digests = {sha256(member.read()).hexdigest() for member in members if member is not None}
        found = [
            a
            for line in map(json.loads, Path("elsewhere/results.jsonl").read_text().splitlines())
            for a in line["assets"]
        ]
        assert {asset["sha256"] for asset in found if asset["kind"] == "video"} == digests
    s3.fault = lambda method, path: "403"
    refused = runner("export", "out", "c", "--format", "webdataset")
    assert (3, False) == (refused.exit_code, Path("c").exists())


def test_the_report_plays_from_the_bucket(in_bucket: FinishedRun, server: Any) -> None:
    """The gallery has addresses that can be read for a time, and its policy allows their server alone; no key is anywhere."""
    page = Path("out/report.html").read_text()
    origin = server[1]["AWS_ENDPOINT_URL"]
    assert f"media-src 'self' file: {origin};" in page
    addresses = re.findall(rf'"({origin}/videos/kittens/[^"]+)"', page)
    assert FILES == len(addresses)
    with urlopen(addresses[0].replace("\\u0026", "&"), timeout=30) as answer:
        assert b"ftyp" in answer.read()[:16]
    assert "its links to the videos are good until" in page
    for name in ("report.html", "results.jsonl", "summary.json"):
        assert "not-a-secret" not in Path("out", name).read_text()
    assert "X-Amz" not in Path("out/results.jsonl").read_text()


def test_the_report_plays_from_a_folder(in_folder: FinishedRun) -> None:
    """The gallery has relative paths to a folder of this machine."""
    page = Path("out/report.html").read_text()
    name = assets()[0]["url"].rpartition("/")[2]
    assert f'"../store/{name}"' in page
    assert "media-src 'self' file: ;" in page


@pytest.mark.slow
def test_a_rejected_take_is_kept(in_folder: FinishedRun) -> None:
    """The video of a rejected take stays in the store beside the new one, and in the results."""
    Path("out/verdicts.jsonl").write_text(
        '{"job_id": "Job-1", "verdict": "reject", "at": "2030-01-01T00:00:00Z"}\n'
    )

    again = runner("rerun", "out", "--verdict", "reject", "--new-seed", "--yes")

    assert 0 == again.exit_code
    found = lines()[0]["assets"]
    assert [None, 1] == [asset.get("take") for asset in found]
    require_whole(found, {})
    assert [] == local_files()


def test_the_store_is_checked_beforehand(folder: Path, s3: FaultyS3) -> None:
    """`doctor --assets` writes, looks at and deletes a probe, and says what is wrong."""
    good = json.loads(runner("doctor", "--assets", "s3://videos/x", "--json").stdout)
    assert ["ok"] == [check["verdict"] for check in good if check["name"] == "assets"]
    assert ["PUT", "HEAD", "POST"] == [method for method, path in s3.requests]
    s3.fault = lambda method, path: "403"
    bad = json.loads(runner("doctor", "--assets", "s3://videos/x", "--json").stdout)
    assert ["problem"] == [check["verdict"] for check in bad if check["name"] == "assets"]


def test_names_of_foreign_results_lead_nowhere(in_folder: FinishedRun) -> None:
    """A URL in results that leads out of its folder is a missing video, and no file is read."""
    Path("elsewhere").mkdir()
    text = Path("out/results.jsonl").read_text()
    url = assets()[0]["url"]
    Path("elsewhere/results.jsonl").write_text(text.replace(url, "file:///etc/..%2Fpasswd"))

    refused = runner("export", "elsewhere", "a", "--format", "webdataset")

    assert refused.exit_code != 0
    assert "has a name that no file can have" in refused.stderr


def test_what_a_killed_process_left_is_deleted(in_folder: FinishedRun) -> None:
    """Between the commit and the deletion of the file, a process dies: the next one deletes it."""
    asset = assets()[0]
    path = Path("out", asset["path"])
    path.write_bytes(b"a copy")

    run()

    assert [] == local_files()


@pytest.mark.slow
def test_checks_see_the_file_and_then_it_goes(folder: Path) -> None:
    """A file stays until the user's command has seen it; one that a process left unseen is fetched from the store for it."""
    store = (folder / "store").as_uri()
    code = "import json, os, sys; print(json.dumps({'seen': os.stat(json.load(sys.stdin)['path']).st_size}))"
    hook = f"on_asset: {json.dumps([sys.executable, '-c', code])}\n"
    Path("m.yaml").write_text(MANIFEST.replace("jobs:", f"{hook}jobs:"))
    run("--assets", store)

    assert [] == local_files()
    assert all(line["checks"]["seen"] in [asset["bytes"] for asset in line["assets"]] for line in lines())

    with closing(sqlite3.connect("out/run.db")) as connection, connection:
        connection.execute("DELETE FROM checks WHERE seq = 1")
    run()
    assert [] == local_files()
    assert lines()[0]["assets"][0]["bytes"] == lines()[0]["checks"]["seen"]


def test_uploaded_videos_are_checked(in_folder: FinishedRun) -> None:
    """`check-media` fetches each video from the store, and leaves none here."""
    pytest.importorskip("av")

    checked = json.loads(runner("check-media", "out", "--json").stdout)

    assert (5, 0) == (checked["videos"], checked["not_checked"])
    assert [] == local_files()
