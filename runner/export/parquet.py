"""The columns as Arrow has them, and Parquet files that hold the videos, as `datasets` and DuckDB read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.export.columns import COLUMNS, Row
from runner.export.videos import SplitTask, blocks_of
from runner.results.writers import atomic_write

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


BATCH_ROWS = 100
"""Of a row group with videos: what a reader must hold in memory for one row."""
BATCH_BYTES = 64_000_000


def require_pyarrow() -> None:
    """
    Import pyarrow.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            "this format needs pyarrow, which is not installed",
            hint="in the checkout that runner was installed from: pip install '.[export]'; or use --format webdataset",
        ) from None


def fields(columns: Sequence[str]) -> list[pa.Field]:
    """Return the fields of some columns, which can all be null."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    return [pa.field(column, types[COLUMNS[column]]) for column in columns]


def writer(file: Any, schema: pa.Schema, *, uncompressed: Sequence[str] = ()) -> Any:
    """
    Return a writer of a Parquet file, a context manager with `write_table`.

    Args:
        uncompressed: Paths of columns that do not get smaller, and whose least and greatest values say nothing.
    """
    import pyarrow.parquet as pq

    others = [
        field.name for field in schema if not any(path.startswith(f"{field.name}.") for path in uncompressed)
    ]
    return pq.ParquetWriter(
        file,
        schema,
        compression={**dict.fromkeys(others, "zstd"), **dict.fromkeys(uncompressed, "none")},
        use_dictionary=others,
        write_statistics=others,
    )
