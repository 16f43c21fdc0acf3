"""How a process's work on a run ended, and the same as ``summary.json`` and the options ``--json`` have it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from runner.api.budget import Repeat
from runner.api.retention import RetentionResult
from runner.core.lifecycle import State
from runner.core.model import JobRecord, Json
from runner.core.stop import Stop
from runner.core.summary import Summary, summarize
from runner.results.formats import summary_json
from runner.store import query
from runner.store.database import connect_reader

if TYPE_CHECKING:
    from runner.engine.engine import Engine

OnStarted = Callable[["Engine"], None]
"""Gets the engine once it exists, to stop it or to look at it."""


class RunResult(Struct, frozen=True):
    """
    How a process's work on a run ended.

    Attributes:
        gateway: As the results name it.
        matches: Jobs that the run was restricted to, and others; None if it was not.
        did_nothing: There was nothing to do, and nothing was written.
        is_simulated: Nothing was sent anywhere.
        needs_base_url: Whether only an option names the gateway, so that the next command needs it too.
        asset_store: The URL of the object store that the videos are in; None if they are in the directory.
        uncertain: Uncertain jobs, the first thousand of them.
        by_class: Jobs that ended without success, by failure class.
        examples: One job of each of these classes.
        summary: Of the whole run; None if nothing was done, see `summary_of`.
        worked_s: How long this process took.
        unsaved: Tasks that were paid for and could not be saved, as pairs of job id and task id.
        troubles: What went wrong with notifications of the end, one sentence each.
        retention: Which older runs of the series were deleted; None if none were to be.
        resume: What resuming the run would submit.
        rerun: What rerunning it would submit.
    """

    run_dir: Path
    name: str
    gateway: str
    exit_code: int
    counts: Mapping[State, int]
    stops: tuple[Stop, ...] = ()
    is_simulated: bool = False
    matches: query.Matches | None = None
    did_nothing: bool = False
    needs_base_url: bool = False
    asset_store: str | None = None
    uncertain: tuple[JobRecord, ...] = ()
    by_class: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[JobRecord, ...] = ()
    summary: Summary | None = None
    worked_s: float = 0.0
    unsaved: tuple[tuple[str, str], ...] = ()
    troubles: tuple[str, ...] = ()
    retention: RetentionResult | None = None
    resume: Repeat = Repeat(0, None)
    rerun: Repeat = Repeat(0, None)


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
