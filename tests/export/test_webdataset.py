"""Tar shards: loaded by `webdataset` and `datasets`, and the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runner.export import selection
from tests.cli.command import runner
from tests.export.runs import files_of, mixed_jobs, video_bytes, write_run
from tests.results.records import succeeded


def export(run: Path, out: Path, *options: object) -> Path:
    """Export a run to tar shards, and require that it succeeds."""
    result = runner("export", run, out, "--format", "webdataset", *options)
    assert (0, "") == (result.exit_code, result.stdout), result.stderr
    return out


def members(path: Path) -> dict[str, bytes]:
    """Return the files of a tar file."""
    with tarfile.open(path) as tar:
        return {info.name: file.read() for info in tar if (file := tar.extractfile(info)) is not None}


def test_a_sample_is_a_video_and_its_values(tmp_path: Path) -> None:
    """The key has no dot whatever the id is, and values that are null are left out."""
    jobs = [succeeded("a.b.c", request={"prompt": "A", "seed": 7}), succeeded("x", task_id=None)]
    out = export(write_run(tmp_path / "run", jobs), tmp_path / "out", "--captions", "txt")

    files = members(out / "data/train/000000.tar")
    keys = list(dict.fromkeys(name.partition(".")[0] for name in files))
    assert [hashlib.sha256(name.encode()).hexdigest()[:32] for name in ("a.b.c", "x")] == keys
    assert [f"{key}.{suffix}" for key in keys for suffix in ("mp4", "json", "txt")] == list(files)
    first, second = (json.loads(files[f"{key}.json"]) for key in keys)
    assert ("a.b.c", 7) == (first["job_id"], first["seed"])
    assert {"seed", "task_id", "duration_s"}.isdisjoint(second)
    assert "小猫" == files[f"{keys[0]}.txt"].decode()
    assert video_bytes(0) == files[f"{keys[0]}.mp4"]


def test_nothing_of_the_machine_is_in_a_shard(tmp_path: Path) -> None:
    """Two exports are equal, byte for byte: headers are USTAR, without times and owners."""
    run = write_run(tmp_path / "run", mixed_jobs(5))
    first, second = export(run, tmp_path / "a"), export(run, tmp_path / "b")

    assert files_of(first) == files_of(second)
    path = first / "data/train/000000.tar"
    with tarfile.open(path) as tar:
        assert {(0, 0, 0, "", "", 0o644)} == {
            (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in tar
        }
    assert b"ustar\x0000" == path.read_bytes()[257:265]


def test_shards_are_bounded_and_in_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard ends before it has more bytes, or more videos, than a reader likes; the index counts its samples."""
    monkeypatch.setattr(selection, "_SHARD_ROWS", 3)
    monkeypatch.setattr(selection, "_SHARD_BYTES", 250)
    lengths = (100, 100, 100, 10, 10, 10, 10, 1000)
    run = tmp_path / "run"
    for number, length in enumerate(lengths):
        write_run(run, [succeeded(f"j{number}")], content=b"x" * length, append=True)
    out = export(run, tmp_path / "out")

    index = json.loads((out / "data/train/index.json").read_text())
    assert [2, 3, 2, 1] == [shard["nsamples"] for shard in index["shardlist"]]
    for shard in index["shardlist"]:
        path = out / "data/train" / shard["url"]
        assert (shard["filesize"], shard["nsamples"]) == (path.stat().st_size, len(members(path)) // 2)


@pytest.mark.slow
def test_it_needs_no_package(tmp_path: Path) -> None:
    """Tar shards are made with the standard library alone; the other formats say what they need."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    (tmp_path / "pyarrow.py").write_text("raise ImportError('absent')")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])

    def call(dataset_format: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner", "export", str(run), str(tmp_path / dataset_format)]
        return subprocess.run(
            [*command, "--format", dataset_format],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert 0 == call("webdataset").returncode
    refused = call("parquet")
    assert 2 == refused.returncode
    assert "needs pyarrow, which is not installed" in refused.stderr
    assert "pip install '.[export]'" in refused.stderr


def check(values: dict[str, Any], video: bytes) -> None:
    """Require that a sample has the video and the values of its job."""
    number = int(values["job_id"].removeprefix("job-"))
    assert hashlib.sha256(video).hexdigest() == values["sha256"]
    assert (f"小猫 {number}", number if number >= 100 else None) == (values["caption"], values.get("seed"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_webdataset_loads_it(tmp_path: Path) -> None:
    """The library finds every sample, and every byte is right."""
    webdataset = pytest.importorskip("webdataset")
    run = write_run(tmp_path / "run", mixed_jobs(200))
    out = export(run, tmp_path / "out", "--split", "metadata.split")

    for split, count in (("train", 160), ("test", 40)):
        samples = list(webdataset.WebDataset(str(out / f"data/{split}/000000.tar"), shardshuffle=False))
        assert count == len(samples)
        for sample in samples:
            check(json.loads(sample["json"]), sample["mp4"])


@pytest.mark.slow
def test_datasets_loads_it(tmp_path: Path) -> None:
    """A value that the first samples do not have is loaded from those that have it."""
    datasets = pytest.importorskip("datasets")
    run = write_run(tmp_path / "run", mixed_jobs(200))
    out = export(run, tmp_path / "out", "--split", "metadata.split", "--captions", "txt")

    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))

    assert {"train": 160, "test": 40} == {name: len(split) for name, split in loaded.items()}
    for split in loaded.values():
        assert datasets.Video() == split.features["mp4"]
        for row in split.cast_column("mp4", datasets.Video(decode=False)):
            check(row["json"], row["mp4"]["bytes"])
