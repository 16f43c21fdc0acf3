"""Uploads to an object store on several machines: shards, merges, journals, and reruns elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.cli.command import runner
from tests.cli.test_asset_store import FILES, MANIFEST, SCENARIO, assets, local_files, require_whole, run  # noqa: F401 - of the fixture `folder`


@pytest.mark.slow
def test_shards_are_merged(folder: Path) -> None:
    """The merged run has the URLs of all shards, lacks no file, and has nothing to do."""
    store = (folder / "store").as_uri()
    for index in range(2):
        shard = runner(
            "run", "m.yaml", "-o", f"s{index}", "--shard", f"{index}/2", "--simulate", "--scenario", "scenario.yaml",
            "--assets", store, "--keep-local" if index else "--in-flight=2",
        )  # fmt: skip
        assert 0 == shard.exit_code
    merged = runner("merge", "out", "s0", "s1", "--json")

    assert [] == json.loads(merged.stdout)["lost_files"]
    require_whole(assets(), {})
    assert "nothing to do, all 5 jobs succeeded" in run().stderr
    assert [] == json.loads(runner("status", "out", "--json").stdout)["lost_files"]


@pytest.mark.slow
def test_another_machine_downloads_nothing_again(folder: Path) -> None:
    """With a journal, a machine that takes over has the URLs, and fetches no video that is in the store."""
    options = ("--assets", (folder / "store").as_uri(), "--journal", (folder / "journal").as_uri())
    run(*options)
    before = {
        asset["url"]: Path(unquote(urlsplit(asset["url"]).path)).stat().st_mtime_ns for asset in assets()
    }
    shutil.rmtree("out")

    again = run(*options)

    assert 0 == again.exit_code
    assert "was brought up to date from its journal" in again.stderr
    assert before == {
        asset["url"]: Path(unquote(urlsplit(asset["url"]).path)).stat().st_mtime_ns for asset in assets()
    }


@pytest.mark.slow
def test_prepared_shards_upload_too(folder: Path) -> None:
    """What `prepare` is told about the store reaches machines that know the journal alone."""
    journal = (folder / "journal").as_uri()
    store = (folder / "store").as_uri()
    prepared = runner(
        "prepare", "m.yaml", "--journal", journal, "--shards", "2", "--simulate", "--assets", store
    )
    assert 0 == prepared.exit_code

    resumed = runner("resume", journal, "--shard", "0/2", "--scenario", "scenario.yaml")

    assert 0 == resumed.exit_code
    (run_dir,) = Path("output").iterdir()
    found = assets(run_dir)
    assert found
    require_whole(found, {})


@pytest.mark.slow
def test_a_rerun_elsewhere_comes_home(folder: Path) -> None:
    """What a rerun on another machine uploaded is known at home by its URL; nothing is copied, or downloaded again."""
    run("--limit", "1")
    store = (folder / "store").as_uri()
    elsewhere = ("-o", "redo", "--scenario", "scenario.yaml", "--assets", store)
    assert 0 == runner("rerun", "out/results.jsonl", *elsewhere).exit_code

    home = runner("rerun", "redo/results.jsonl", "--into", "out")

    assert 0 == home.exit_code
    assert [None, *[store] * (FILES - 1)] == [
        asset["url"] and asset["url"].rpartition("/")[0] for asset in assets()
    ]
    assert ["Job-1~9419e0b75fa7e1fa.mp4"] == local_files()
    require_whole(assets()[1:], {})
    assert "nothing to do, all 5 jobs succeeded" in run().stderr
