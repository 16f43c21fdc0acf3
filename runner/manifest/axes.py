"""
What makes one entry many jobs: rows, then the matrix as it is written, then repetitions.

The last turns fastest. Only the row at hand is in memory, so that an entry may
stand for millions of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from runner.core.problem import Finding
from runner.core.spec import Json
from runner.core.value import frozen
from runner.manifest.lines import Complain
from runner.manifest.rows import Row, RowFile, open_rows

REPETITION = "n"
"""The name that counts repetitions, from 1."""

Scene = tuple[int, int | None, dict[str, Json]]
"""A row's line (0 where there is none), the number of the repetition (or None), and a job's values by name."""


@frozen
class Axes:
    """
    The dimensions of an entry.

    Attributes:
        matrix: Values by name.
        repeat: How often each job is made; None where the entry does not say.
    """

    rows: RowFile | None
    matrix: Mapping[str, Sequence[Json]]
    repeat: int | None

    def names(self) -> tuple[str, ...]:
        """List the names that a job's values have; those of JSONL rows are known only when they are read."""
        columns = self.rows.names or () if self.rows else ()
        return (*columns, *self.matrix, *((REPETITION,) if self.repeat is not None else ()))

    @property
    def is_open(self) -> bool:
        """Rows may bring names that nobody knows before they are read."""
        return self.rows is not None and self.rows.names is None

    def findings(self) -> list[Finding]:
        """Say which names are taken twice."""
        columns = set(self.rows.names or ()) if self.rows else set[str]()
        found = [
            Finding(("matrix", name), f"'{name}' is a column of the row file too", "rename one of them")
            for name in self.matrix
            if name in columns
        ]
        if self.repeat is not None and REPETITION in columns | set(self.matrix):
            message = f"'{REPETITION}' counts the repetitions, and is a column or in the matrix too"
            found.append(Finding(("repeat",), message, "rename the other one"))
        return found

    def scenes(self, complain: Complain) -> Iterator[Scene]:
        """
        Stream the values of every job; each mapping is the taker's own.

        Raises:
            FileUnusable: The row file can't be read to its end.
        """
        rows: Iterator[Row] = iter([(0, {})]) if self.rows is None else self.rows.rows(complain)
        if not self.matrix and self.repeat is None:
            for line, row in rows:
                yield line, None, row
            return
        names = tuple(self.matrix)
        for line, row in rows:
            for choice in product(*self.matrix.values()):
                values = row | dict(zip(names, choice, strict=True))
                if self.repeat is None:
                    yield line, None, values
                    continue
                for number in range(1, self.repeat + 1):
                    yield line, number, values | {REPETITION: number}


def read_axes(entry: Mapping[str, Json], folder: Path) -> Axes:
    """
    Read the dimensions of an entry whose structure was checked.

    Raises:
        FileUnusable: The row file that it names can't be read.
    """
    rows = open_rows(folder / entry["from"]) if "from" in entry else None
    return Axes(rows, entry.get("matrix") or {}, entry.get("repeat"))
