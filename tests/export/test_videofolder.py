"""Folders of videos: few files in each, typed metadata, and loaded by `datasets`."""

from __future__ import annotations

import hashlib
import os
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from runner.core.model import Verdicts
from runner.errors import ExportError
from runner.export.roots import Folder
from runner.export.selection import (
    MAX_VIDEOFOLDER_ROWS,
    ExportOptions,
    Format,
    Source,
    SourceRecord,
    write_plan,
)
from runner.objects import Objects
from runner.results.reader import open_results
from tests.cli.command import runner
from tests.export.runs import files_of, mixed_jobs, write_run
from tests.results.records import succeeded


def export(run: Path, out: Path, *options: object) -> Path:
    """Export a run to a videofolder, and require that it succeeds."""
    result = runner("export", run, out, "--format", "videofolder", *options)
    assert (0, "") == (result.exit_code, result.stdout), result.stderr
    return out


def test_metadata_name_the_files(tmp_path: Path) -> None:
    """Each row names a file relative to its split's folder, which has the content of its digest."""
    run = write_run(tmp_path / "run", mixed_jobs(10))
    out = export(run, tmp_path / "out", "--split", "metadata.split")

    assert ["test", "train"] == sorted(path.name for path in (out / "data").iterdir())
    for split, count in (("train", 8), ("test", 2)):
        rows = pq.read_table(out / "data" / split / "metadata.parquet").to_pylist()
        assert count == len(rows)
        for row in rows:
            assert f"0000/{row['job_id']}.mp4" == row["file_name"]
            content = (out / "data" / split / row["file_name"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row["sha256"]


def test_every_split_has_the_same_types(tmp_path: Path) -> None:
    """A column that has no value in one split has its type all the same."""
    jobs = [
        succeeded("a", metadata={"split": "train"}, request={"seed": 1}),
        succeeded("b", metadata={"split": "test"}, request={}),
    ]
    out = export(write_run(tmp_path / "run", jobs), tmp_path / "out", "--split", "metadata.split")
    schemas = [pq.read_schema(out / "data" / split / "metadata.parquet") for split in ("train", "test")]

    assert schemas[0] == schemas[1]
    assert pa.int64() == schemas[1].field("seed").type


@pytest.mark.slow
@pytest.mark.parametrize(("options", "files"), [([], [1, 999]), (["--captions", "txt"], [4, 998, 998])])
def test_fewer_than_1000_files_in_a_folder(tmp_path: Path, options: list[str], files: list[int]) -> None:
    """Hubs and file browsers want small folders; captions count too."""
    run = write_run(tmp_path / "run", (succeeded(f"j{n}") for n in range(1000)), content=b"x")
    out = export(run, tmp_path / "out", "--link", "hard", *options)

    folders = [path for path in (out / "data" / "train").iterdir() if path.is_dir()]
    assert files == sorted(len(list(folder.iterdir())) for folder in folders)


def test_captions(tmp_path: Path) -> None:
    """The text file has the name of its video, and the caption, or else the prompt, as it is."""
    jobs = [succeeded("a", metadata={"caption": "小猫\n<b>"}), succeeded("b", metadata={})]
    out = export(write_run(tmp_path / "run", jobs), tmp_path / "out", "--captions", "txt")

    folder = out / "data" / "train" / "0000"
    assert ["a.mp4", "a.txt", "b.mp4", "b.txt"] == sorted(path.name for path in folder.iterdir())
    assert "小猫\n<b>" == (folder / "a.txt").read_text()
    assert "A kitten looks up" == (folder / "b.txt").read_text()


def test_links_and_copies(tmp_path: Path) -> None:
    """A copy is a file of its own, so that nothing that is done to it can harm a video that was paid for."""
    run = write_run(tmp_path / "run", mixed_jobs(2))
    copied, linked = export(run, tmp_path / "a"), export(run, tmp_path / "b", "--link", "hard")

    name = "data/train/0000/job-0.mp4"
    assert files_of(copied) == files_of(linked)
    assert not os.path.samefile(run / "assets/job-0.mp4", copied / name)
    assert os.path.samefile(run / "assets/job-0.mp4", linked / name)


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """The dataset gets the file itself: a link would lead elsewhere from another folder."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    path = run / "assets" / "job-0.mp4"
    path.rename(run / "moved.mp4")
    path.symlink_to("../moved.mp4")
    out = export(run, tmp_path / "out", "--link", "hard")

    linked = out / "data/train/0000/job-0.mp4"
    assert not linked.is_symlink()
    assert os.path.samefile(run / "moved.mp4", linked)


def test_the_card_names_files_and_no_classes(tmp_path: Path) -> None:
    """Captions are not among the files, and names of folders are not labels."""
    run = write_run(tmp_path / "run", mixed_jobs(1))
    out = export(run, tmp_path / "out", "--captions", "txt")

    config = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])["configs"][0]
    assert config["drop_labels"] is True
    paths = ["data/train/metadata.parquet", "data/train/*/*.mp4"]
    assert [{"split": "train", "path": paths}] == config["data_files"]


def test_a_changed_video_is_not_linked(tmp_path: Path) -> None:
    """A link is made only after the file was read and its digest was right."""
    run = write_run(tmp_path / "run", mixed_jobs(1), content=b"before")
    (run / "assets" / "job-0.mp4").write_bytes(b"after!")

    result = runner("export", run, tmp_path / "out", "--format", "videofolder", "--link", "hard")

    assert 2 == result.exit_code
    assert "has changed since it was downloaded" in result.stderr
    assert not (tmp_path / "out").exists()


def test_ids_that_differ_only_in_case(tmp_path: Path) -> None:
    """Their files have names that differ on every file system."""
    jobs = [succeeded("a"), succeeded("A")]
    out = export(write_run(tmp_path / "run", jobs), tmp_path / "out")

    names = [
        row["file_name"].lower() for row in pq.read_table(out / "data/train/metadata.parquet").to_pylist()
    ]
    assert 2 == len(set(names))


@pytest.mark.slow
def test_too_many_videos(tmp_path: Path) -> None:
    """More files than a hub takes are refused, with what to use instead."""
    run = tmp_path / "run"
    write_run(run, [succeeded("j0")], content=b"x")
    (line,) = open_results(run / "results.jsonl")
    jobs = repeat(SourceRecord("kittens", "", line.record), MAX_VIDEOFOLDER_ROWS + 1)
    source = Source([Folder(run, Verdicts(), Objects({}))], ("kittens",), jobs)

    with pytest.raises(
        ExportError, match="a videofolder of more than 100,000 videos has too many files"
    ) as refused:
        write_plan(source, ExportOptions(format=Format.VIDEOFOLDER), tmp_path, lambda number: None)

    assert refused.value.hint == "use --format parquet or webdataset"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "parquet", "--link", "hard"], "--link is for videofolder"),
        (["--format", "parquet", "--captions", "txt"], "--captions is for files beside videos"),
    ],
)
def test_options_of_another_format(tmp_path: Path, options: list[str], message: str) -> None:
    """An option that would do nothing is an error."""
    result = runner("export", tmp_path, tmp_path / "out", *options)

    assert 2 == result.exit_code
    assert message in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--captions", "txt"]])
@pytest.mark.parametrize("by_card", [True, False])
def test_datasets_loads_it(tmp_path: Path, by_card: bool, options: list[str]) -> None:
    """The library loads it by its card and by the builder; every byte is right, and nulls are null."""
    datasets = pytest.importorskip("datasets")
    run = write_run(tmp_path / "run", mixed_jobs(200))
    out = export(run, tmp_path / "out", "--split", "metadata.split", *options)
    cache = str(tmp_path / "cache")

    if by_card:
        loaded = datasets.load_dataset(str(out), cache_dir=cache)
    else:
        loaded = datasets.load_dataset(
            "videofolder", data_dir=str(out / "data"), cache_dir=cache, drop_labels=True
        )

    assert {"train": 160, "test": 40} == {name: len(split) for name, split in loaded.items()}
    for split in loaded.values():
        assert "label" not in split.features
        assert datasets.Video() == split.features["video"]
        for row in split.cast_column("video", datasets.Video(decode=False)):
            number = int(row["job_id"].removeprefix("job-"))
            content = Path(row["video"]["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row["sha256"]
            assert (f"小猫 {number}", number if number >= 100 else None) == (row["caption"], row["seed"])


@pytest.mark.slow
def test_a_frame_is_decoded(tmp_path: Path) -> None:
    """What was exported plays."""
    av = pytest.importorskip("av")
    out = export(write_run(tmp_path / "run", mixed_jobs(1)), tmp_path / "out")

    with av.open(str(out / "data/train/0000/job-0.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (1920, 1080) == (frame.width, frame.height)
