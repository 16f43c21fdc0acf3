"""What is wrong with a manifest, and where."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct


class Severity(StrEnum):
    """An error keeps everything from being sent; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Position(NamedTuple):
    """
    A place in a file. Line and column count from 1; 0 where there is none to name.

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
    Something wrong inside one request, before anybody knows where the request stands.

    Attributes:
        path: Keys and indices from the request's root to the value.
        hint: What would be right, such as ``did you mean 'seed'?``; None where there is nothing to say.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None
    severity: Severity = Severity.ERROR


class Problem(Struct, frozen=True):
    """
    A finding with its place.

    Attributes:
        job: The job as a person finds it again, such as ``jobs[3] "grass-2"``; None for the manifest itself.
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
