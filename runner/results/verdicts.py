"""The verdicts on the videos of a run: lines of `verdicts.jsonl`, of which the last of a job counts."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from runner.core.filenames import VERDICTS_NAME
from runner.core.model import Verdicts
from runner.disk import lines_of, open_regular, sync_folder
from runner.errors import ResultsError
from runner.jsontext import dumps, loads
from runner.results.formats import utc_text
from runner.results.writers import AppendedFile, append_whole

VERDICTS = ("keep", "reject")


def read_verdicts(path: Path) -> Verdicts:
    """
    Read verdicts, by job id; the last line of a job counts, and an incomplete last line is ignored.

    Without the file there are none.

    Raises:
        ResultsError: The file can't be read, or has an invalid line.
    """
    verdicts = Verdicts()
    try:
        with open_regular(path) as file:
            for number, text in enumerate(lines_of(file), 1):
                if not text.strip():
                    continue
                try:
                    line = loads(text)
                    job_id, verdict = line["job_id"], line["verdict"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    if not text.endswith(b"\n"):
                        break
                    job_id = verdict = None
                if not isinstance(job_id, str) or verdict not in VERDICTS:
                    raise ResultsError(
                        f"{path}:{number} is not a verdict",
                        hint='correct the line: {"job_id": "ID", "verdict": "keep", "at": TIME}, or "reject"',
                    )
                verdicts[job_id] = verdict
                _remember_time(verdicts, job_id, line.get("at"))
    except FileNotFoundError:
        return verdicts
    except OSError as error:
        raise ResultsError(f"{path} can't be read: {error.strerror or error}") from error
    return verdicts


def _remember_time(verdicts: Verdicts, job_id: str, at: object) -> None:
    verdicts.given_at.pop(job_id, None)
    if isinstance(at, str):
        with suppress(ValueError):
            verdicts.given_at[job_id] = datetime.fromisoformat(at).timestamp()


def known_verdicts(run_dir: Path) -> Verdicts:
    """Return the verdicts of a run, by job id; none if they can't be read, for what does not depend on them."""
    with suppress(ResultsError):
        return read_verdicts(run_dir / VERDICTS_NAME)
    return Verdicts()


class VerdictsWriter(AppendedFile):
    """
    Appends verdicts to the file of a run, each durable before `append` returns.

    Raises:
        OSError: The file can't be opened, or is a link or a special file.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(self.path_in(run_dir))
        sync_folder(run_dir)

    @staticmethod
    def path_in(run_dir: Path) -> Path:
        """Return the path of the file in a run directory."""
        return run_dir / VERDICTS_NAME

    def append(self, job_id: str, verdict: str, *, at: float) -> None:
        """
        Append a verdict.

        Args:
            at: When it was given, in seconds since 1970.

        Raises:
            DiskFull: There is no space; nothing of it is in the file.
            OSError: The disk failed.
        """
        line = dumps({"job_id": job_id, "verdict": verdict, "at": utc_text(at)}) + b"\n"
        append_whole(self._descriptor, line, self._path)
        os.fsync(self._descriptor)
