"""
Tar shards as `webdataset` and `datasets` read them, with an index of the shards of each split.

A sample is the files that have one key: the text before the first dot, so it is made from a digest of the job id.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.export.columns import Row
from runner.export.videos import SplitTask, blocks_of
from runner.jsontext import dumps
from runner.results.writers import atomic_write

INDEX_NAME = "index.json"
_BLOCK_BYTES = 512


def write_split(task: SplitTask) -> None:
    """Write the shards of a split, except for those that are there, and then their index."""
    folder = task.data / task.name
    folder.mkdir(exist_ok=True)
    shards = []
    for number, rows in task.shards():
        path = folder / f"{number:06}.tar"
        count = task.skip(rows) if path.exists() else _write_shard(path, rows, task)
        shards.append({"url": path.name, "nsamples": count, "filesize": path.stat().st_size})
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": task.name, "shardlist": shards}
    with atomic_write(folder / INDEX_NAME) as file:
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
        file.write(bytes(2 * _BLOCK_BYTES))
    return count


def _sample(row: Row, task: SplitTask) -> Iterator[bytes]:
    """Yield what a video adds to a tar file."""
    yield _head(f"{row.key}{row.suffix}", row.bytes)
    yield from blocks_of(task.roots, row)
    yield _padding(row.bytes)
    # Without nulls: `datasets` takes the type of a field from the first samples.
    texts = {"json": dumps({name: value for name, value in row.values.items() if value is not None})}
    if task.options.captions:
        texts["txt"] = row.caption.encode()
    for suffix, text in texts.items():
        yield _head(f"{row.key}.{suffix}", len(text))
        yield text
        yield _padding(len(text))


def _head(name: str, size: int) -> bytes:
    """Return a header in the oldest format that every reader knows, without times and owners."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)
