"""Parquet files that hold the videos themselves, as `datasets` and DuckDB read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.export.arrow import BATCH_BYTES, BATCH_ROWS, fields, writer
from runner.export.plan import SplitPlan
from runner.export.rows import COLUMNS, Row
from runner.export.videos import blocks_of
from runner.results.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa


def write_split(
    data: Path,
    split: str,
    size: SplitPlan,
    shards: Iterable[tuple[int, Iterator[Row]]],
    root: Path,
    columns: tuple[str, ...],
    on_row: Callable[[], None],
) -> None:
    """Write the files of a split into a folder, except for those that are there."""
    schema = _schema(columns)
    for number, rows in shards:
        path = data / f"{split}-{number:05}-of-{size.shards:05}.parquet"
        if path.exists():
            for _ in rows:
                on_row()
            continue
        with (
            atomic_write(path) as file,
            writer(file, schema, uncompressed=("video.bytes", "video.path")) as parquet,
        ):
            for batch in _batches(rows, root, on_row):
                parquet.write_table(_table(batch, schema))


def _batches(rows: Iterable[Row], root: Path, on_row: Callable[[], None]) -> Iterator[list[dict[str, Any]]]:
    """Read the videos of some rows at a time."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or size + row.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        video = {"bytes": b"".join(blocks_of(root, row)), "path": row.name + row.suffix}
        batch.append({"video": video, **row.values})
        size += row.bytes
        on_row()
    yield batch


def _table(batch: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(batch, schema=schema)


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
