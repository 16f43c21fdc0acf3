"""How a run ended, as ``summary.json`` and the options ``--json`` have it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from runner.api.execute import RunResult
from runner.core.model import Json
from runner.core.summary import Summary, summarize
from runner.results.formats import summary_json
from runner.store import query
from runner.store.database import connect_reader


def summary_of(run_dir: Path) -> Summary:
    """
    Summarize a run from its ``run.db``.

    Raises:
        RunDirError: There is none, or it can't be read.
    """
    with contextlib.closing(connect_reader(run_dir)) as reader:
        return summarize(query.records(reader))


def result_json(result: RunResult) -> dict[str, Json]:
    """
    Write how a run ended in the shape of `summary.json`, with the exit code and the run directory.

    Raises:
        RunDirError: Nothing was done, and ``run.db`` can't be read for the summary.
    """
    summary = result.summary or summary_of(result.run_dir)
    value = summary_json(summary, run=result.name, gateway=result.gateway)
    return {**value, "exit_code": result.exit_code, "run_dir": str(result.run_dir)}
