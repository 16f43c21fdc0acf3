"""A split of a dataset that is to be written, and its videos as they are read: each is checked against its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from runner.errors import ExportError
from runner.export.columns import COLUMNS, Row, place
from runner.export.roots import Root
from runner.export.selection import ExportOptions, read_rows

_BLOCK_BYTES = 1 << 20


def blocks_of(roots: Sequence[Root], row: Row) -> Iterator[bytes]:
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
        raise _error(row, "is missing") from None
    except OSError as error:
        raise _error(row, f"can't be read: {error.strerror or error}") from error
    if digest.hexdigest() != row.sha256:
        raise _error(row, "has changed since it was downloaded: its SHA-256 is another")


def is_same(path: Path, row: Row) -> bool:
    """Return whether a file has the content of a video."""
    try:
        if path.stat().st_size != row.bytes:
            return False
        with path.open("rb") as file:
            digest = sha256()
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == row.sha256


def _error(row: Row, problem: str) -> ExportError:
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
