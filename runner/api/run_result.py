"""
How a process's work on a run ended, as ``summary.json`` and the options ``--json`` have it, and the notifications.

Notifications go to the webhooks and commands that the manifest names. Trouble with them changes nothing of the run.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct, field
from msgspec.structs import replace

from runner.api.budget import Repeat, repeats
from runner.api.outputs import Outputs
from runner.checks.duplicate_videos import save_duplicates
from runner.commands import CommandFailed, environment_without_keys, run_command
from runner.connector import Proxies
from runner.core.filenames import DB_NAME
from runner.core.lifecycle import State, next_step
from runner.core.model import JobRecord, Json
from runner.core.problem import Problem
from runner.core.settings import DEFAULT_KEY_NAME, Settings
from runner.core.stop import Stop, StopReason, exit_code
from runner.core.summary import Summary, summarize
from runner.core.units import format_count, format_duration
from runner.engine.events import ActiveRun, Notice, Observer, ignore
from runner.engine.progress import stop_for_error, stop_for_store_error
from runner.errors import RunnerError
from runner.gateway.credentials import POOL_NAME
from runner.jsontext import dumps
from runner.results.formats import summary_json
from runner.store import query, work_list
from runner.store.database import reading, translated
from runner.store.store import Store
from runner.store.work_list import Matches

if TYPE_CHECKING:
    from runner.api.execute import Work
    from runner.engine.engine import Engine

_MAX_UNCERTAIN = 1000

OnStarted = Callable[[ActiveRun], None]
"""Gets the run once it is active, to watch it or to stop it."""


class Callbacks(Struct, frozen=True):
    """
    The functions of a caller that a run calls: with its events, and with questions.

    Attributes:
        observe: Gets events as they happen; it raises nothing, see `guarded`.
        on_problem: Gets the manifest's problems, warnings included, as they are found.
        on_started: Gets the run, to stop it; and before that, older runs of the series.
        confirm_new: Gets a question: whether to begin a new run although the manifest was run elsewhere.
        confirm_cost: Gets a question: whether to submit, and pay; None if there is nobody to ask.
    """

    observe: Observer = ignore
    on_problem: Callable[[Problem], None] = ignore
    on_started: OnStarted = ignore
    confirm_new: Callable[[str], bool] = lambda _question: False
    confirm_cost: Callable[[str], bool] | None = None


class KeptRun(Struct, frozen=True):
    """An older run that should have been deleted, and why it is kept."""

    run_dir: Path
    why: str


class RetentionResult(Struct, frozen=True):
    """Which older runs were deleted."""

    deleted: tuple[Path, ...]
    kept: tuple[KeptRun, ...]


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
    matches: Matches | None = None
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


def result_of(work: Work, outputs: Outputs, engine: Engine | None) -> RunResult:
    """Return how the work ended, also if ``run.db`` can't be read any more."""
    reader, job_filter = work.store.reader, work.job_filter
    try:
        # Before what could be rerun is selected.
        matches = work_list.matches(reader, job_filter) if job_filter.is_restricted else None
        return replace(_result(work, outputs, engine), matches=matches)
    except sqlite3.DatabaseError as error:
        if engine is None:
            raise
        # Not as an error: by its exit code, nothing would have been sent.
        engine.stop(stop_for_error(error, work.store.run_dir))
        counts = engine.counts
        summary = replace(summarize(()), jobs=sum(counts.values()), by_state=counts)
        return replace(_known_result(work, engine, engine.stops, counts), summary=summary)


def _result(work: Work, outputs: Outputs, engine: Engine | None) -> RunResult:
    """Bring the derived files up to date, and return how the work ended."""
    store, config = work.store, work.config
    stops = () if engine is None else engine.stops
    counts = query.counts(store.reader, with_gone=False)
    summary, was_finished = None, "finished" in query.meta(store.reader)
    if not store.is_finished:
        summary, stop = _finish(store, outputs, config.settings)
        # A disk that failed while the run worked fails here again, and was reported.
        if stop is not None and not any(
            known.reason in (StopReason.DISK, StopReason.STORE) for known in stops
        ):
            work.observe(Notice("stopping", stop.message, stop.hint))
            stops = (*stops, stop)
    by_class = query.class_counts(store.reader)
    resume, rerun = repeats(store, config.settings, work.job_filter)
    return replace(
        _known_result(work, engine, stops, counts),
        did_nothing=(summary is None or was_finished) and not stops,
        uncertain=tuple(islice(query.records_in(store.reader, {State.UNCERTAIN}), _MAX_UNCERTAIN)),
        by_class=by_class,
        examples=tuple(query.first_of_each_class(store.reader, by_class)),
        summary=summary,
        resume=resume,
        rerun=rerun,
    )


def _known_result(
    work: Work, engine: Engine | None, stops: Sequence[Stop], counts: Mapping[State, int]
) -> RunResult:
    """Return how the work ended, without what only ``run.db`` knows."""
    config = work.config
    return RunResult(
        work.store.run_dir,
        config.settings.name,
        config.gateway,
        exit_code(stops, counts),
        counts,
        tuple(stops),
        config.origin.is_simulated,
        needs_base_url=config.needs_base_url,
        asset_store=config.asset_url,
        unsaved=() if engine is None else tuple(engine.unsaved),
    )


def _finish(store: Store, outputs: Outputs, settings: Settings) -> tuple[Summary | None, Stop | None]:
    """Rewrite the derived files. Errors are returned, since they must not hide how the run itself ended."""
    try:
        with translated(store.run_dir / DB_NAME):
            save_duplicates(store, settings.reject)
            summary = outputs.finish(now_at=time.time())
    except RunnerError as error:
        return None, stop_for_store_error(error)
    except OSError as error:
        return None, Stop(StopReason.STORE, f"the results in {store.run_dir} can't be written: {error}")
    return summary, None


def summary_of(run_dir: Path) -> Summary:
    """
    Summarize a run from its ``run.db``.

    Raises:
        RunDirError: There is none, or it can't be read.
    """
    with reading(run_dir) as reader:
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


WEBHOOK_S = 10.0
COMMAND_S = 30.0


def triggered_events(result: RunResult) -> frozenset[str]:
    """
    Name the events to notify of: ``finish`` always; ``failure``, ``uncertain`` and ``unfinished`` if they apply.

    There are none if nothing was done, and none for a simulated run.
    """
    if result.did_nothing or result.is_simulated:
        return frozenset()
    events = {"finish"}
    unsuccessful = (State.FAILED, State.TIMED_OUT, State.UNDELIVERED)
    if any(result.counts[state] for state in unsuccessful) or any(
        stop.exit_code == 3 for stop in result.stops
    ):
        events.add("failure")
    if result.counts[State.UNCERTAIN]:
        events.add("uncertain")
    if any(count and next_step(state) is not None for state, count in result.counts.items()):
        events.add("unfinished")
    return frozenset(events)


def occasions(on: Sequence[str], events: Set[str], counts: Mapping[State, int]) -> set[str]:
    """
    Return which of some events and thresholds, such as ``failed>=5%``, are reached.

    >>> counts = {State.FAILED: 1, State.SUCCEEDED: 19}
    >>> occasions(["failed>=5%", "failed>=2", "finish", "failure"], {"finish"}, counts) == {"failed>=5%", "finish"}
    True
    """
    return {text for text in on if (_is_reached(text, counts) if ">=" in text else text in events)}


def _is_reached(threshold: str, counts: Mapping[State, int]) -> bool:
    name, _, amount = threshold.partition(">=")
    count = counts.get(State(name), 0)
    if not amount.endswith("%"):
        return count >= int(amount)
    return 100 * count >= int(amount[:-1]) * sum(counts.values())


def _sentence(result: RunResult) -> str:
    """Return how a run ended in one line, as chats show it."""
    others = (
        f"{count:,} {state.label}"
        for state, count in result.counts.items()
        if count and state is not State.SUCCEEDED
    )
    jobs = (
        f"{result.counts[State.SUCCEEDED]:,} of {format_count(sum(result.counts.values()), 'job')} succeeded"
    )
    stops = (stop.message for stop in result.stops)
    return f"{result.name}: {', '.join([jobs, *others])}" + "".join(f"; stopped: {stop}" for stop in stops)


async def send_notifications(
    result: RunResult,
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    *,
    folder: Path | None = None,
    command_s: float = COMMAND_S,
) -> RunResult:
    """
    Send all configured notifications concurrently, and add what went wrong with them to the result.

    A webhook gets a POST with the summary as JSON, a command gets it on its standard input; the events are
    under ``occasions``, and one line for people under ``text``, which chats show. The variables that hold keys are not in the command's environment.

    Args:
        folder: Where commands are started; None for the working directory.
        command_s: After how many seconds a command is killed, with its children.
    """
    events = triggered_events(result)
    reached = [occasions(notify.on, events, result.counts) if events else set() for notify in settings.notify]
    due = [notify for notify, why in zip(settings.notify, reached, strict=True) if why]
    if not due:
        return result
    try:
        summary = {
            **result_json(result),
            "occasions": sorted(events.union(*reached)),
            "text": _sentence(result),
        }
        if result.run_dir.is_dir():
            # Commands are started in another folder than the program. That of many shards is the URL of a journal.
            summary["run_dir"] = str(result.run_dir.absolute())
        text = dumps(summary)
    except RunnerError as error:
        return replace(result, troubles=(*result.troubles, error.message))
    proxies = Proxies.from_environ(environ)
    sending = [_post(notify.webhook, text, proxies) for notify in due if notify.webhook is not None]
    sending += [
        _run_command(notify.command, text, settings.key_names, folder, command_s)
        for notify in due
        if notify.command
    ]
    troubles = [trouble for trouble in await asyncio.gather(*sending) if trouble is not None]
    return replace(result, troubles=(*result.troubles, *troubles))


async def _post(url: str, text: bytes, proxies: Proxies) -> str | None:
    # The path of a webhook's address is often a secret.
    webhook = f"the webhook at {urlsplit(url).hostname}"
    try:
        timeout = aiohttp.ClientTimeout(total=WEBHOOK_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url,
                data=text,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=proxies.for_url(url),
            ) as response,
        ):
            return None if response.status < 300 else f"{webhook} answered {response.status}"
    except TimeoutError:
        return f"{webhook} did not answer within {format_duration(WEBHOOK_S)}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{webhook} can't be reached ({type(error).__name__})"


async def _run_command(
    command: Sequence[str], text: bytes, key_names: Sequence[str], folder: Path | None, command_s: float
) -> str | None:
    environ = environment_without_keys((*key_names, DEFAULT_KEY_NAME, POOL_NAME))
    try:
        await run_command(command, text, environ=environ, limit_s=command_s, folder=folder)
    except CommandFailed as error:
        return str(error)
    return None
