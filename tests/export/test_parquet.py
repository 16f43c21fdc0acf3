"""Parquet files: typed whatever the values are, with every byte of the videos, and loaded by real libraries."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.export.columns import COLUMNS
from tests.cli.command import runner
from tests.export.runs import files_of, mixed_jobs, video_bytes, write_run
from tests.results.records import succeeded


def export(run: Path, out: Path, *options: object) -> Path:
    """Export a run to Parquet, and require that it succeeds."""
    result = runner("export", run, out, "--format", "parquet", *options)
    assert (0, "") == (result.exit_code, result.stdout), result.stderr
    return out


def test_duckdb_reads_every_byte(tmp_path: Path) -> None:
    """Each row has the video that its digest names, and the values of its job."""
    run = write_run(tmp_path / "run", mixed_jobs(20))
    out = export(run, tmp_path / "out", "--split", "metadata.split")

    rows = (
        duckdb.connect()
        .execute(
            f"SELECT job_id, caption, seed, sha256, video.bytes FROM '{out}/data/*.parquet' ORDER BY list_extract"
            "(string_split(job_id, '-'), 2)::INT"
        )
        .fetchall()
    )

    assert [f"job-{number}" for number in range(20)] == [row[0] for row in rows]
    assert [f"小猫 {number}" for number in range(20)] == [row[1] for row in rows]
    assert [None] * 10 + list(range(10, 20)) == [row[2] for row in rows]
    for number, (*_, sha256, content) in enumerate(rows):
        assert video_bytes(number) == content
        assert hashlib.sha256(content).hexdigest() == sha256
    assert ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"] == [
        path.name for path in sorted((out / "data").iterdir())
    ]


def test_a_column_without_values_keeps_its_type(tmp_path: Path) -> None:
    """The types are those of a run that has all values, so that files of several runs can be read together."""
    run = write_run(tmp_path / "run", [succeeded(metadata={}, task_id=None)])
    schema = pq.read_schema(next((export(run, tmp_path / "out") / "data").iterdir()))

    assert pa.int64() == schema.field("seed").type
    assert pa.string() == schema.field("task_id").type
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert {"_type": "Video"} == features["video"]
    assert ["video", *COLUMNS] == list(features) == schema.names


def test_row_groups_are_small_and_videos_are_not_compressed(tmp_path: Path) -> None:
    """A reader needs little memory for one row; and compressing a video again is lost time."""
    run = write_run(tmp_path / "run", mixed_jobs(250), content=b"x" * 5000)
    metadata = pq.ParquetFile(next((export(run, tmp_path / "out") / "data").iterdir())).metadata

    assert [100, 100, 50] == [metadata.row_group(index).num_rows for index in range(3)]
    column = metadata.row_group(0).column(0)
    assert ("video.bytes", "UNCOMPRESSED", False) == (
        column.path_in_schema,
        column.compression,
        column.is_stats_set,
    )


def test_two_exports_are_equal(tmp_path: Path) -> None:
    """Nothing in a dataset depends on when or where it was made."""
    run = write_run(tmp_path / "run", mixed_jobs(4))

    assert files_of(export(run, tmp_path / "a")) == files_of(export(run, tmp_path / "b"))


def test_only_some_columns(tmp_path: Path) -> None:
    """The columns are those that were named, in that order; a name that is none is an error with the nearest one."""
    run = write_run(tmp_path / "run", mixed_jobs(2))
    out = export(run, tmp_path / "out", "--columns", "caption, model")

    assert ["video", "caption", "model"] == pq.read_schema(next((out / "data").iterdir())).names
    result = runner("export", run, tmp_path / "other", "--format", "parquet", "--columns", "captoin")
    assert 2 == result.exit_code
    assert "did you mean 'caption'?" in result.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_datasets_loads_it(tmp_path: Path) -> None:
    """The library takes the splits from the card, and the video's type from the file."""
    datasets = pytest.importorskip("datasets")
    run = write_run(tmp_path / "run", mixed_jobs(200))
    out = export(run, tmp_path / "out", "--split", "metadata.split")

    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))

    assert {"train": 160, "test": 40} == {name: len(split) for name, split in loaded.items()}
    rows = itertools.chain(
        *(split.cast_column("video", datasets.Video(decode=False)) for split in loaded.values())
    )
    for row in rows:
        assert hashlib.sha256(row["video"]["bytes"]).hexdigest() == row["sha256"]
        assert row["caption"] == f"小猫 {row['job_id'].removeprefix('job-')}"


@pytest.mark.parametrize(
    ("form", "pattern"), [("parquet", "*.parquet"), ("videofolder", "*/metadata.parquet")]
)
def test_rows_of_long_texts_are_written_a_few_at_a_time(tmp_path: Path, form: str, pattern: str) -> None:
    """What is in memory at once has a bound, whatever the prompts are."""
    jobs = [succeeded(f"j{n}", index=n, request={"model": "m", "prompt": "x" * 4_500_000}) for n in range(3)]
    run = write_run(tmp_path / "run", jobs, content=b"video")
    assert 0 == runner("export", run, tmp_path / "out", "--format", form).exit_code

    (path,) = (tmp_path / "out" / "data").glob(pattern)
    metadata = pq.ParquetFile(path).metadata
    assert [1, 1, 1] == [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
