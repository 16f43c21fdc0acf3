"""Running from a program: blocking, or with the events of a run as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runner.api import rerun as rerun_api
from runner.api import run as run_api
from runner.api.execute import RunResult
from runner.api.options import RunOptions
from runner.core.stop import Stop, StopReason
from runner.engine.engine import Engine
from runner.engine.events import Event, Observer
from runner.results.reader import ResultsFile, open_results
from runner.store.database import RESULTS_NAME
from runner.store.transitions import Selection

run_async, resume_async, rerun_async = run_api.run, run_api.resume, rerun_api.rerun


def _ignore(event: object) -> None:
    """Watch nothing."""


def run(
    manifest: Path | str,
    *,
    output: Path | str | None = None,
    options: RunOptions = RunOptions(),
    observe: Observer = _ignore,
) -> RunResult:
    """
    Run a manifest to its end, and return what came of it. The same call again goes on where it stopped.

    From asynchronous code await `run_async`, or follow the events with `follow`.

    Args:
        output: The run directory; by default ``output/`` and the manifest's name.
        observe: Gets each `JobEnded` and `Notice` as it happens.

    Raises:
        ManifestError: The manifest has errors; nothing was sent.
        CredentialsMissing: No key is set; nothing was sent.
        RunDirError: The run directory can't be used.
    """
    return asyncio.run(
        run_api.run(
            Path(manifest), output=None if output is None else Path(output), options=options, observe=observe
        )
    )


def resume(
    run_dir: Path | str, *, options: RunOptions = RunOptions(), observe: Observer = _ignore
) -> RunResult:
    """Go on with a run without its manifest; as `run` otherwise."""
    return asyncio.run(run_api.resume(Path(run_dir), options=options, observe=observe))


def rerun(
    run_dir: Path | str,
    selection: Selection = Selection(),
    *,
    options: RunOptions = RunOptions(),
    observe: Observer = _ignore,
) -> RunResult:
    """
    Run again what did not succeed, and pay again only for what failed; as `run` otherwise.

    Jobs in doubt, lost ones, and those that were refused for what they ask are left alone unless
    the selection names their class.
    """
    return asyncio.run(rerun_api.rerun(Path(run_dir), selection, options=options, observe=observe))


class RunStream:
    """
    The events of a run under way: an asynchronous iterator that ends with the run.

    What its reader has not taken yet is kept in memory.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._engine: Engine | None = None
        self._task: asyncio.Task[RunResult]

    @property
    def outcome(self) -> RunResult:
        """
        What came of the run, once the iteration has ended.

        Raises:
            RunnerError: The run could not begin or go on.
        """
        return self._task.result()

    def stop(self) -> None:
        """Stop as the first Ctrl-C does: submit no more, wait for POSTs on their way, lose nothing."""
        if self._engine is None:
            # Nothing can have been sent before there is an engine.
            self._task.cancel()
        else:
            self._engine.stop(Stop(StopReason.INTERRUPTED, "the program that ran it stopped it"))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event
        # An error of the run is the iteration's.
        await self._task


@asynccontextmanager
async def follow(
    manifest: Path | str, *, output: Path | str | None = None, options: RunOptions = RunOptions()
) -> AsyncIterator[RunStream]:
    """
    Run a manifest and follow its events; leaving the block early stops the run without losing anything.

    ``async with follow("kittens.yaml") as events:`` gives what ``async for event in events:`` goes through;
    after that ``events.outcome`` says what came of the run.
    """
    following = RunStream()

    def started(engine: Engine) -> None:
        following._engine = engine

    task = asyncio.create_task(
        run_api.run(
            Path(manifest),
            output=None if output is None else Path(output),
            options=options,
            observe=following._queue.put_nowait,
            started=started,
        ),
        name="run",
    )
    following._task = task
    task.add_done_callback(lambda _: following._queue.put_nowait(None))
    try:
        yield following
    finally:
        if not task.done():
            following.stop()
            await asyncio.wait([task])


def read_results(path: Path | str) -> ResultsFile:
    """
    Open the results of a run: a ``results.jsonl``, plain or gzip'd, or the run directory it is in.

    Iterating gives one result for each job, whose ``record`` has all that is known of it.

    Raises:
        ResultsError: There are none, or they can't be read as results.
    """
    place = Path(path)
    return open_results(place / RESULTS_NAME if place.is_dir() else place)
