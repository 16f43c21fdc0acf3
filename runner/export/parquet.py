"""Parquet files that hold the videos themselves, as `datasets` and DuckDB read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from runner.export.arrow import BATCH_BYTES, BATCH_ROWS, fields, writer
from runner.export.rows import COLUMNS, Row
from runner.export.split import SplitTask
from runner.export.videos import blocks_of
from runner.results.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa


def write_split(task: SplitTask) -> None:
    """Write the files of a split, except for those that are there."""
    import pyarrow as pa

    schema = _schema(task.columns)
    for number, rows in task.shards():
        path = task.data / f"{task.name}-{number:05}-of-{task.shard_count:05}.parquet"
        if path.exists():
            task.skip(rows)
            continue
        with (
            atomic_write(path) as file,
            writer(file, schema, uncompressed=("video.bytes", "video.path")) as parquet,
        ):
            for batch in _batches(rows, task):
                parquet.write_table(pa.Table.from_pylist(batch, schema=schema))


def _batches(rows: Iterable[Row], task: SplitTask) -> Iterator[list[dict[str, Any]]]:
    """Read the videos of some rows at a time."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or size + row.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        video = {"bytes": b"".join(blocks_of(task.roots, row)), "path": row.name + row.suffix}
        batch.append({"video": video, **row.values})
        size += row.bytes
        task.on_row()
    yield batch


def _schema(columns: tuple[str, ...]) -> pa.Schema:
    import pyarrow as pa

    features = {
        "video": {"_type": "Video"},
        **{name: {"dtype": COLUMNS[name], "_type": "Value"} for name in columns},
    }
    video = pa.field("video", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.schema(
        [video, *fields(columns)], metadata={"huggingface": json.dumps({"info": {"features": features}})}
    )
