"""
Files of videos in folders, with their metadata in a Parquet file per split: a "videofolder" of `datasets`.

The metadata are not JSON lines, because `datasets` infers the types of those from the values of each split, and
then refuses splits of which one has no value in a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from runner.errors import ExportError
from runner.export.columns import Row, place
from runner.export.parquet import fields, writer
from runner.export.videos import SplitTask, blocks_of, is_same
from runner.results.writers import atomic_write

_BATCH_ROWS = 1000


def write_split(task: SplitTask) -> None:
    """Write the videos of a split, except for those that are there, and then its metadata."""
    folder = task.data / task.name
    for number, rows in task.shards():
        shard = folder / _shard_name(number)
        shard.mkdir(parents=True, exist_ok=True)
        for row in rows:
            _write_video(shard / _video_name(row), row, task)
            if task.options.captions:
                with atomic_write(shard / f"{row.name}.txt") as text:
                    text.write(row.caption.encode())
            task.on_row()
    _write_metadata(folder / "metadata.parquet", task)


def _shard_name(number: int) -> str:
    return f"{number:04}"


def _video_name(row: Row) -> str:
    return row.name + row.suffix


def _write_video(path: Path, row: Row, task: SplitTask) -> None:
    if is_same(path, row):
        return
    if not task.options.use_links:
        with atomic_write(path) as file:
            for block in blocks_of(task.roots, row):
                file.write(block)
        return
    for _ in blocks_of(task.roots, row):
        pass
    path.unlink(missing_ok=True)
    try:
        task.roots[row.root].link(row.source, path)
    except OSError as error:
        raise ExportError(
            f"{place(row.source, row.job_id)} can't be linked into {path.parent}: {error.strerror}",
            hint="use --link copy",
        ) from error


def _write_metadata(path: Path, task: SplitTask) -> None:
    import pyarrow as pa

    schema = pa.schema([pa.field("file_name", pa.string()), *fields(task.columns)])
    with atomic_write(path) as file, writer(file, schema) as parquet:
        for number, rows in task.shards():
            for batch in _batches(rows):
                table = [
                    {"file_name": f"{_shard_name(number)}/{_video_name(row)}", **row.values} for row in batch
                ]
                parquet.write_table(pa.Table.from_pylist(table, schema=schema))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH_ROWS)):
        yield batch
