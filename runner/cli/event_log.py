"""The log file of a run: its events and the messages of the program's loggers, a JSON object per line."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner import __version__
from runner.core.problem import Problem
from runner.core.sanitize import redact
from runner.disk import open_own
from runner.engine.events import JobEnded, RunEvent
from runner.errors import UsageError
from runner.jsontext import dumps
from runner.results.formats import utc_text

JOBS = "runner.jobs"
"""The logger that has every step of every job."""


class EventLog(logging.Handler):
    """
    Appends events and the messages of the program's loggers to a file.

    If the file can't be written any more, for example because the disk is full, the log ends and the run continues.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Self:
        """
        Open the file.

        Raises:
            UsageError: The file can't be written.
        """
        try:
            # A link or a pipe could lead to a file of somebody else's, or wait for a reader.
            descriptor = open_own(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            # Unbuffered, so that each line has left the process before the next event.
            self._file = os.fdopen(descriptor, "ab", buffering=0)
        except OSError as error:
            raise UsageError(
                f"{self._path} can't be written: {error.strerror}",
                hint="check the path given to --log-file",
            ) from None
        logging.getLogger("runner").addHandler(self)
        self.write("start", version=__version__, command=[redact(text) for text in sys.argv[1:]])
        logging.getLogger(JOBS).setLevel(logging.DEBUG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("runner").removeHandler(self)
        logging.getLogger(JOBS).setLevel(logging.NOTSET)
        if self._file is not None:
            self.write("end")
            self._file.close()

    def write(self, kind: str, **values: Any) -> None:
        """Append a line."""
        if self._file is None:
            return
        try:
            self._file.write(dumps({"at": utc_text(time.time()), "event": kind, **values}) + b"\n")
        except (OSError, ValueError):
            self._file.close()
            self._file = None

    def event(self, event: RunEvent) -> None:
        """Append an event of the run."""
        if isinstance(event, JobEnded):
            self.write(
                "job_ended",
                job_id=event.job_id,
                task_id=event.task_id,
                model=event.model,
                status=event.state.value,
                error_class=None if event.error is None else event.error.cls.value,
                message=None if event.error is None else event.error.message,
            )
        else:
            self.write(event.kind, message=event.message, hint=event.hint)

    def problem(self, problem: Problem) -> None:
        """Append a problem of the manifest."""
        self.write(
            "problem",
            severity=problem.severity.value,
            place=str(problem.position),
            job=problem.job,
            path=problem.path,
            message=problem.message,
            hint=problem.hint,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Append a step of a job, or a message of a logger with the traceback of its exception."""
        if record.name == JOBS:
            self.write(record.getMessage(), **getattr(record, "fields", {}))
            return
        trace = None if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
        self.write(
            "log",
            level=record.levelname.lower(),
            message=redact(record.getMessage()),
            trace=None if trace is None else redact(trace),
        )
