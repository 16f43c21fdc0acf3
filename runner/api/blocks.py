"""
What each block of jobs contributed to the derived files, so that the next process writes only changed blocks again.

A block has the jobs of adjacent indices. It knows how long its part of `results.jsonl` and of `failed.yaml` is, and
what it adds to the summary and the report. Blocks are in a file of their own, which may be lost: it counts only if
``run.db`` says that it belongs to exactly the derived files that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec
from msgspec import Struct, field

from runner.core.lifecycle import State
from runner.core.model import FailureClass, JobRecord
from runner.report.totals import Totals

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
