"""What a dataset is made from: shards, several results files, and buckets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.core.lifecycle import State
from runner.core.model import FailureClass
from runner.objects import open_store
from tests.cli.command import CommandResult, runner
from tests.export.runs import files_of, mixed_jobs, write_run
from tests.export.test_selection import exported
from tests.objects.s3 import s3_server
from tests.results.records import succeeded, unsuccessful

MANIFEST = """
version: 1
name: kittens
jobs:
  - {id: 'j${n}', matrix: {n: [1, 2, 3, 4]}, request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}'}}
"""


def export(out: Path, *runs: object, options: tuple[object, ...] = ("--format", "parquet")) -> CommandResult:
    """Export runs, or try to."""
    return runner("export", *runs, out, *options)


@pytest.mark.slow
def test_shards(tmp_path: Path) -> None:
    """The shards of a run, and the run that they are merged into, are the same dataset."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text(MANIFEST)
    (tmp_path / "scenario.yaml").write_text("version: 1\ngenerate_s: [0, 0]\n")
    shards = [tmp_path / "0", tmp_path / "1"]
    for number, shard in enumerate(shards):
        simulate = ("--simulate", "--scenario", tmp_path / "scenario.yaml")
        done = runner("run", manifest, "-o", shard, "--shard", f"{number}/2", *simulate)
        assert 0 == done.exit_code, done.stderr
    assert 0 == export(tmp_path / "of shards", *shards).exit_code
    assert 0 == runner("merge", tmp_path / "merged", *shards).exit_code

    assert 0 == export(tmp_path / "of merged", tmp_path / "merged").exit_code

    assert (
        ["j1", "j2", "j3", "j4"]
        == exported(tmp_path / "of merged")
        == sorted(exported(tmp_path / "of shards"))
    )


def test_several_results_files(tmp_path: Path) -> None:
    """They are one dataset: a job that succeeded in a rerun is there once, each video is from its own folder."""
    monday = [
        succeeded("a"),
        unsuccessful("b", State.FAILED, FailureClass.REMOTE_FAILED, request={"prompt": "B"}),
    ]
    tuesday = [
        succeeded("c"),
        succeeded("b", request={"prompt": "B"}),
        replace(succeeded("a"), request={"prompt": "A"}),
    ]
    write_run(tmp_path / "one", monday, run="monday", content=b"of monday")
    write_run(tmp_path / "two", tuesday, run="tuesday", content=b"of tuesday")
    (tmp_path / "two" / "verdicts.jsonl").write_text('{"job_id": "a", "verdict": "reject"}\n')

    done = export(tmp_path / "out", tmp_path / "one/results.jsonl", tmp_path / "two")

    assert 0 == done.exit_code, done.stderr
    assert "the results has lines of 2 runs" in done.stderr
    assert ["a", "c", "b", "a"] == exported(tmp_path / "out")
    assert "| remote_failed |" not in (tmp_path / "out/README.md").read_text()
    assert (
        0
        == export(
            tmp_path / "rejected",
            tmp_path / "one",
            tmp_path / "two",
            options=("--format", "videofolder", "--verdict", "reject"),
        ).exit_code
    )
    assert [b"of tuesday"] == [path.read_bytes() for path in (tmp_path / "rejected").rglob("*.mp4")]


def test_the_file_with_a_bad_line_is_named(tmp_path: Path) -> None:
    """Lines are counted in their own file."""
    write_run(tmp_path / "one", mixed_jobs(2))
    (write_run(tmp_path / "two", mixed_jobs(1)) / "results.jsonl").write_text("{}\n")

    done = export(tmp_path / "out", tmp_path / "one", tmp_path / "two")

    assert (2, True) == (done.exit_code, f"{tmp_path}/two/results.jsonl:1 " in done.stderr), done.stderr


def put_run(run: Path, url: str, environ: Mapping[str, str]) -> None:
    """Copy a run into a bucket."""
    store = open_store(url, environ)
    for name, content in files_of(run).items():
        store.put(name, content)


@pytest.mark.parametrize("dataset_format", ["videofolder", "webdataset"])
def test_a_folder_as_a_bucket(tmp_path: Path, dataset_format: str) -> None:
    """A URL is read like a directory; a video that is missing there is found before anything is written."""
    run = write_run(tmp_path / "run", mixed_jobs(3))
    put_run(run, f"file://{tmp_path}/bucket", {})
    (tmp_path / "bucket/verdicts.jsonl").write_text(json.dumps({"job_id": "job-1", "verdict": "keep"}) + "\n")
    options = ("--format", dataset_format)

    assert 0 == export(tmp_path / "out", f"file://{tmp_path}/bucket", options=options).exit_code
    assert 0 == export(tmp_path / "expected", run, options=options).exit_code
    assert files_of(tmp_path / "expected") == files_of(tmp_path / "out")
    assert (
        "1 video,"
        in export(
            tmp_path / "kept", f"file://{tmp_path}/bucket", options=(*options, "--verdict", "keep")
        ).stderr
    )

    (tmp_path / "bucket/assets/job-0.mp4").unlink()
    missing = export(tmp_path / "none", f"file://{tmp_path}/bucket", options=options)
    assert (2, True) == (missing.exit_code, "assets/job-0.mp4 of job 'job-0' is missing" in missing.stderr)
    no_run = export(tmp_path / "none", f"file://{tmp_path}/empty", options=options)
    assert (2, True) == (no_run.exit_code, "empty has no results.jsonl" in no_run.stderr)
    linked = export(
        tmp_path / "none",
        f"file://{tmp_path}/bucket",
        options=("--format", "videofolder", "--where", "seed>1", "--link", "hard"),
    )
    assert (2, True) == (linked.exit_code, "use --link copy" in linked.stderr), linked.stderr
    assert not (tmp_path / "none").exists()


def test_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos in S3 are read as they are needed; one that has changed there makes no dataset."""
    run = write_run(tmp_path / "run", mixed_jobs(3))
    with s3_server() as (_, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        put_run(run, "s3://videos/run", environ)

        done = export(tmp_path / "out", "s3://videos/run")
        assert 0 == done.exit_code, done.stderr
        open_store("s3://videos/run", environ).put(
            "assets/job-1.mp4", bytes((run / "assets/job-1.mp4").stat().st_size)
        )
        changed = export(tmp_path / "none", "s3://videos/run")

    assert 0 == export(tmp_path / "expected", run).exit_code
    assert files_of(tmp_path / "expected") == files_of(tmp_path / "out")
    assert (2, True) == (
        changed.exit_code,
        "job 'job-1' has changed since it was downloaded" in changed.stderr,
    )
    assert not (tmp_path / "none").exists()
