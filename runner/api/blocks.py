"""
What each block of jobs contributed to the derived files, so that the next process writes only changed blocks again.

A block has the jobs of adjacent indices. It knows how long its part of `results.jsonl` and of `failed.yaml` is, and
what it adds to the summary and the report. Blocks are in a file of their own, which may be lost: it counts only if
``run.db`` says that it belongs to exactly the derived files that are there (`Written`).

Of the jobs whose lines this process appended, the blocks are known before its end, which does not read these jobs again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import msgspec
from msgspec import Struct, field

from runner import __version__
from runner.core.filenames import BLOCKS_NAME, FAILED_NAME, RESULTS_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord, Verdicts
from runner.report.page_data import MAX_JOBS, Totals, row_bytes
from runner.results.writers import ResultsWriter
from runner.store import query
from runner.store.freshness import count_jobs
from runner.store.store import Store

BLOCK_JOBS = 500
_FORMAT = "2"
"""Of a block in its file; blocks of another format are not read."""
_LENGTH_BYTES = 4

Key = tuple[int, int]
"""Of a block: whether its jobs were removed from the manifest (0 or 1), and their indices divided by its size."""


class Block(Struct):
    """
    The jobs of adjacent indices.

    Attributes:
        result_bytes: Length of their lines in `results.jsonl`.
        comment_bytes: Length of the comments in `failed.yaml` before the first of them that is run there.
        failed_bytes: Length of the rest in `failed.yaml`.
        succeeded: The keys (``seq``) of those that succeeded.
        others: The keys of the others.
        examples: The key of the first of each failure class.
    """

    key: Key
    result_bytes: int = 0
    comment_bytes: int = 0
    failed_bytes: int = 0
    succeeded: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    examples: dict[FailureClass, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)

    def add(self, seq: int, record: JobRecord) -> None:
        """Add a job."""
        self.totals.add(record)
        self.add_key(seq, *_outcome(record))

    def add_key(self, seq: int, succeeded: bool, cls: FailureClass | None) -> None:
        """Add the key of a job, whose class is None if it succeeded, to those of its kind."""
        (self.succeeded if succeeded else self.others).append(seq)
        if cls is not None:
            self.examples.setdefault(cls, seq)


def _outcome(record: JobRecord) -> tuple[bool, FailureClass | None]:
    """Return whether a job succeeded, and why not if it did not."""
    succeeded = record.state is State.SUCCEEDED
    return succeeded, None if succeeded or record.error is None else record.error.cls


def read_blocks(file: BinaryIO) -> Iterator[tuple[Block, bytes]]:
    """
    Yield each block of a file, and the text that it was read from.

    Raises:
        msgspec.MsgspecError: There is something else in the file.
    """
    decoder = msgspec.msgpack.Decoder(Block)
    while length := file.read(_LENGTH_BYTES):
        text = file.read(int.from_bytes(length))
        yield decoder.decode(text), length + text


def encode_block(block: Block) -> bytes:
    """Return a block as `read_blocks` reads it."""
    text = msgspec.msgpack.encode(block)
    return len(text).to_bytes(_LENGTH_BYTES) + text


class Written(Struct, frozen=True):
    """
    The files that the blocks belong to.

    Attributes:
        content: What the content of the files depends on beside the jobs.
        files: Of results, `failed.yaml` and blocks: inode, size, and time of change; null for one that is not there.
        failed_start: Where the jobs begin in `failed.yaml`, in bytes.
    """

    content: list[str]
    files: list[tuple[int, int, int] | None]
    failed_start: int


def written(run_dir: Path, *, run: str, gateway: str, failed_start: int) -> Written:
    """Return what the derived files in a directory are now."""
    names = (RESULTS_NAME, FAILED_NAME, BLOCKS_NAME)
    files = [_identity(run_dir / name) for name in names]
    return Written([__version__, _FORMAT, run, gateway, str(run_dir)], files, failed_start)


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_if_same(path: Path, identity: tuple[int, int, int] | None, *, has_grown: bool = False) -> int | None:
    """
    Open a file that an earlier process wrote; None if it is not that one any more.

    Args:
        has_grown: Whether lines may have been appended to it since.
    """
    if identity is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    inode, size, changed_at = identity
    is_same = (status.st_ino, status.st_size, status.st_mtime_ns) == (inode, size, changed_at)
    if is_same or (has_grown and status.st_ino == inode and status.st_size >= size):
        return descriptor
    os.close(descriptor)
    return None


_MAX_OPEN = 64
"""Blocks that wait for further jobs; of more, the one that was begun first is given up."""
_MAX_GAPS = 4
"""The lines of a block are read at once if they are spread over at most this many times their size."""
_NO_VERDICTS = Verdicts()


class _Line(Struct, frozen=True, array_like=True):
    """
    The line of a job.

    Attributes:
        start, count: Its place in the file that lines were appended to, in bytes.
        cls: The failure class, if the job did not succeed.
        row: What the report shows of the job; None if that was not made.
    """

    index: int
    seq: int
    start: int
    count: int
    succeeded: bool
    cls: FailureClass | None
    row: bytes | None


class AppendedBlock(Struct):
    """
    The jobs of a block that ended.

    Attributes:
        jobs: How many there are in ``run.db``.
        lines: Of those that ended; once all have, in the order of the manifest.
        text: Their lines, once they were read.
    """

    jobs: int
    lines: list[_Line] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    text: bytes = b""

    def block(self, key: Key) -> Block:
        """Return what all files have of the block, except `failed.yaml`."""
        block = Block(key, result_bytes=len(self.text), totals=self.totals)
        for line in self.lines:
            block.add_key(line.seq, line.succeeded, line.cls)
        by_class = self.totals.summary.by_class
        # They were counted in the order in which jobs ended.
        self.totals.summary.by_class = {cls: by_class[cls] for cls in block.examples}
        return block


class AppendedBlocks:
    """
    Collects blocks while lines are appended. Complete ones wait on disk, in a file without a name.

    Args:
        reader: Reads the jobs that lines are made of.
        writer: Appends these lines.
        size: The size of a block.
    """

    def __init__(self, store: Store, reader: sqlite3.Connection, writer: ResultsWriter, size: int) -> None:
        self._changed, self._reader, self._writer, self._size = store.changed, reader, writer, size
        self._makes_rows = not query.has_jobs(reader, MAX_JOBS + 1)
        self._open: dict[Key, AppendedBlock] = {}
        self._complete: dict[Key, tuple[int, int]] = {}
        # Closed by `close`.
        self._file = TemporaryFile(dir=store.run_dir, buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def add(
        self, seqs: Mapping[str, int], records: Sequence[JobRecord], lines: Sequence[bytes], start: int
    ) -> None:
        """
        Add jobs whose lines were appended.

        Args:
            seqs: The keys of the jobs, by job id.
            start: Where the first line is.

        Raises:
            OSError: The disk failed, or is full.
        """
        for record, line in zip(records, lines, strict=True):
            row = None
            if self._makes_rows and all(asset.url is None for asset in record.assets):
                row = row_bytes(record, _NO_VERDICTS.of(record))
            new = _Line(record.index, seqs[record.job_id], start, len(line), *_outcome(record), row)
            self._add(int(record.is_gone), new, record)
            start += len(line)

    def _add(self, is_gone: int, line: _Line, record: JobRecord) -> None:
        key = is_gone, line.index // self._size
        block = self._open.get(key)
        if block is None:
            # If it was complete, a job ended twice.
            self._complete.pop(key, None)
            block = self._open[key] = AppendedBlock(count_jobs(self._reader, key, self._size))
            if len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        block.lines.append(line)
        block.totals.add(record)
        if len(block.lines) == block.jobs:
            del self._open[key]
            self._save(key, block)

    def _save(self, key: Key, block: AppendedBlock) -> None:
        block.lines.sort(key=attrgetter("index", "seq"))
        text = memoryview(msgspec.msgpack.encode(block))
        start = self._file.tell()
        place = start, len(text)
        while text:
            text = text[self._file.write(text) :]
        self._complete[key] = place

    def find(self, key: Key) -> AppendedBlock | None:
        """Return a block whose jobs all ended, once, and have not changed since; None for any other."""
        if key not in self._complete:
            return None
        start, count = self._complete[key]
        block = msgspec.msgpack.decode(os.pread(self._file.fileno(), count, start), type=AppendedBlock)
        seqs = {line.seq for line in block.lines}
        if len(seqs) != block.jobs or not self._changed.has_lines(seqs) or not self._writer.is_own:
            return None
        block.text = self._text(block.lines)
        return block if block.text.count(b"\n") == block.jobs else None

    def _text(self, lines: Sequence[_Line]) -> bytes:
        first, end = min(line.start for line in lines), max(line.start + line.count for line in lines)
        read = self._writer.read
        if end - first > _MAX_GAPS * sum(line.count for line in lines):
            return b"".join([read(line.start, line.count) for line in lines])
        text = read(first, end - first)
        return b"".join([text[line.start - first : line.start - first + line.count] for line in lines])
