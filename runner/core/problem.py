"""Problems in a manifest, with their positions."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct


class Severity(StrEnum):
    """With an error nothing is sent; with a warning everything is."""

    ERROR = "error"
    WARNING = "warning"


class Position(NamedTuple):
    """
    A position in a file. Line and column count from 1; 0 if unknown.

    A tuple for the same reason as `JobSpec`: every job has one.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class Finding(Struct, frozen=True):
    """
    A problem inside a value of the manifest, such as a request, whose position is not yet known.

    Attributes:
        path: Keys and indices from the root of the value.
        hint: What would be right, such as ``did you mean 'seed'?``, or None.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None
    severity: Severity = Severity.ERROR


class Problem(Struct, frozen=True):
    """
    A problem with its position.

    Attributes:
        job: The job, such as ``jobs[3] "grass-2"``; None for the manifest itself.
        path: Where in the job, such as ``media[0].url``; empty for the job as a whole.
    """

    severity: Severity
    position: Position
    message: str
    job: str | None = None
    path: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.position}: "
        if self.severity is Severity.WARNING:
            place += "warning: "
        if self.job:
            place += f"{self.job}: "
        return f"{place}{self.message}" + (f"; {self.hint}" if self.hint else "")
