"""A split of a dataset that is to be written, for the modules of the formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from runner.export.plan import ExportOptions, read_rows
from runner.export.roots import Root
from runner.export.rows import COLUMNS, Row


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
