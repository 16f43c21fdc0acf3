"""
What each block of jobs contributed to the derived files, so that the next process writes only changed blocks again.

A block has the jobs of adjacent indices. It knows how long its part of `results.jsonl` and of `failed.yaml` is, and
what it adds to the summary and the report. Blocks are in a file of their own, which may be lost: it counts only if
``run.db`` says that it belongs to exactly the derived files that are there (`Written`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct, field

from runner import __version__
from runner.core.filenames import BLOCKS_NAME, FAILED_NAME, RESULTS_NAME
from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.report.aggregates import Totals

BLOCK_JOBS = 500
_LENGTH_BYTES = 4


class Block(Struct):
    """
    The jobs of adjacent indices.

    Attributes:
        key: Whether they were removed from the manifest (0 or 1), and their indices divided by the size of a block.
        result_bytes: Length of their lines in `results.jsonl`.
        comment_bytes: Length of the comments in `failed.yaml` before the first of them that is run there.
        failed_bytes: Length of the rest in `failed.yaml`.
        succeeded: The keys (``seq``) of those that succeeded.
        others: The keys of the others.
        examples: The key of the first of each failure class.
    """

    key: tuple[int, int]
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
        is_success = record.state is State.SUCCEEDED
        (self.succeeded if is_success else self.others).append(seq)
        if record.error is not None and not is_success:
            self.examples.setdefault(record.error.cls, seq)


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
    return Written([__version__, run, gateway, str(run_dir)], files, failed_start)


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
