"""
Write the files of one split of a dataset, in each format; every video is checked against its digest as it is read.

A "videofolder" of `datasets` has videos in folders, with their metadata in a Parquet file per split. The metadata are
not JSON lines, because `datasets` infers the types of those from the values of each split, and then refuses splits of
which one has no value in a column.

Tar shards are as `webdataset` and `datasets` read them, with an index of the shards of each split. A sample is the files
that have one key: the text before the first dot, so it is made from a digest of the job id.

Parquet files hold the videos, as `datasets` and DuckDB read them.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from runner.errors import ExportError, UsageError, install_hint
from runner.export.columns import COLUMNS, Row, place
from runner.export.roots import Root
from runner.export.selection import ExportOptions, read_rows
from runner.jsontext import dumps
from runner.results.writers import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

_VIDEO_ROWS = 100
"""Of a row group with videos: what a reader must hold in memory for one row."""
_METADATA_ROWS = 1000
"""Of a row group without videos."""
_MAX_BATCH_BYTES = 64_000_000
_BYTES_OF_CHAR = 4
_INDEX_NAME = "index.json"
_TAR_BLOCK_BYTES = 512


def _blocks_of(roots: Sequence[Root], row: Row) -> Iterator[bytes]:
    """
    Yield the content of a video.

    Raises:
        ExportError: After the last block: it is not the content that the run downloaded. Or the file can't be read.
    """
    digest = sha256()
    try:
        for block in roots[row.root].blocks(row.source):
            digest.update(block)
            yield block
    except FileNotFoundError:
        raise _video_error(row, "is missing") from None
    except OSError as error:
        raise _video_error(row, f"can't be read: {error.strerror or error}") from error
    if digest.hexdigest() != row.sha256:
        raise _video_error(row, "has changed since it was downloaded: its SHA-256 differs")


def _has_content(path: Path, row: Row) -> bool:
    """Return whether a file has the content of a video."""
    try:
        if path.stat().st_size != row.bytes:
            return False
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest() == row.sha256
    except OSError:
        return False


def _video_error(row: Row, problem: str) -> ExportError:
    return ExportError(
        f"{place(row.source, row.job_id)} {problem}",
        hint="put the file back and run the same command again, or leave the job out with --where 'job_id!=ID'",
    )


class SplitTask(Struct, frozen=True):
    """
    What the function of a format gets.

    Attributes:
        name: Of the split.
        shard_count: Into how many files or folders it is divided.
        data: The folder for the files of all splits; a file that is there under its final name is complete.
        rows: The folder of the rows that `write_plan` has written.
        roots: Where the videos are.
        on_row: To be called for each row that is in the dataset, also if it was there before.
    """

    name: str
    shard_count: int
    data: Path
    rows: Path
    roots: Sequence[Root]
    options: ExportOptions
    on_row: Callable[[], None]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in their order."""
        return self.options.columns or tuple(COLUMNS)

    def shards(self) -> Iterator[tuple[int, Iterator[Row]]]:
        """Yield the number of each shard with its rows."""
        return read_rows(self.rows, self.name)

    def skip(self, rows: Iterable[Row]) -> int:
        """Pass over the rows of a file that is there, and return their number."""
        skipped = 0
        for number, _ in enumerate(rows, 1):
            self.on_row()
            skipped = number
        return skipped


def write_parquet(task: SplitTask) -> None:
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
            _parquet_writer(file, schema, uncompressed=("video.bytes", "video.path")) as parquet,
        ):
            for batch in _batches(rows, _VIDEO_ROWS, has_videos=True):
                table = [{"video": _video(row, task), **row.values} for row in batch]
                parquet.write_table(pa.Table.from_pylist(table, schema=schema))


def _video(row: Row, task: SplitTask) -> dict[str, Any]:
    video = {"bytes": b"".join(_blocks_of(task.roots, row)), "path": _video_name(row)}
    task.on_row()
    return video


def _batches(rows: Iterable[Row], max_rows: int, *, has_videos: bool = False) -> Iterator[list[Row]]:
    """Yield some rows at a time, as many as fit into memory with their texts, and with their videos."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        texts = sum(len(value) for value in row.values.values() if isinstance(value, str))
        row_bytes = texts * _BYTES_OF_CHAR + (row.bytes if has_videos else 0)
        if batch and (len(batch) == max_rows or size + row_bytes > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_bytes
    yield batch


def _schema(columns: tuple[str, ...]) -> pa.Schema:
    import pyarrow as pa

    features = {
        "video": {"_type": "Video"},
        **{name: {"dtype": COLUMNS[name], "_type": "Value"} for name in columns},
    }
    video = pa.field("video", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.schema(
        [video, *_column_fields(columns)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


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
            hint=f"{install_hint('export')}; or use --format webdataset",
        ) from None


def _column_fields(columns: Sequence[str]) -> list[pa.Field]:
    """Return the fields of some columns, which can all be null."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    return [pa.field(column, types[COLUMNS[column]]) for column in columns]


def _parquet_writer(file: Any, schema: pa.Schema, *, uncompressed: Sequence[str] = ()) -> Any:
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


def write_videofolder(task: SplitTask) -> None:
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
    if _has_content(path, row):
        return
    if not task.options.use_links:
        with atomic_write(path) as file:
            for block in _blocks_of(task.roots, row):
                file.write(block)
        return
    for _ in _blocks_of(task.roots, row):
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

    schema = pa.schema([pa.field("file_name", pa.string()), *_column_fields(task.columns)])
    with atomic_write(path) as file, _parquet_writer(file, schema) as parquet:
        for number, rows in task.shards():
            for batch in _batches(rows, _METADATA_ROWS):
                table = [
                    {"file_name": f"{_shard_name(number)}/{_video_name(row)}", **row.values} for row in batch
                ]
                parquet.write_table(pa.Table.from_pylist(table, schema=schema))


def write_webdataset(task: SplitTask) -> None:
    """Write the shards of a split, except for those that are there, and then their index."""
    folder = task.data / task.name
    folder.mkdir(exist_ok=True)
    shards = []
    for number, rows in task.shards():
        path = folder / f"{number:06}.tar"
        count = task.skip(rows) if path.exists() else _write_shard(path, rows, task)
        shards.append({"url": path.name, "nsamples": count, "filesize": path.stat().st_size})
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": task.name, "shardlist": shards}
    with atomic_write(folder / _INDEX_NAME) as file:
        file.write(dumps(index) + b"\n")


def _write_shard(path: Path, rows: Iterable[Row], task: SplitTask) -> int:
    """Write a shard, and return its number of samples."""
    count = 0
    with atomic_write(path) as file:
        for number, row in enumerate(rows, 1):
            for block in _sample(row, task):
                file.write(block)
            task.on_row()
            count = number
        file.write(bytes(2 * _TAR_BLOCK_BYTES))
    return count


def _sample(row: Row, task: SplitTask) -> Iterator[bytes]:
    """Yield what a video adds to a tar file."""
    yield _tar_header(f"{row.key}{row.suffix}", row.bytes)
    yield from _blocks_of(task.roots, row)
    yield _tar_padding(row.bytes)
    # Without nulls: `datasets` takes the type of a field from the first samples.
    texts = {"json": dumps({name: value for name, value in row.values.items() if value is not None})}
    if task.options.captions:
        texts["txt"] = row.caption.encode()
    for suffix, text in texts.items():
        yield _tar_header(f"{row.key}.{suffix}", len(text))
        yield text
        yield _tar_padding(len(text))


def _tar_header(name: str, size: int) -> bytes:
    """Return a header in the oldest format that every reader knows, without times and owners."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _tar_padding(size: int) -> bytes:
    return bytes(-size % _TAR_BLOCK_BYTES)
