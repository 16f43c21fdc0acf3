"""Run from a program: blocking, or with the events of a run as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runner.api import rerun as rerun_api
from runner.api import run as run_api
from runner.api.execute import RunResult, ignore
from runner.api.options import RunOptions
from runner.core.filenames import RESULTS_NAME
from runner.core.stop import Stop, StopReason
from runner.engine.engine import Engine
from runner.engine.events import Observer, RunEvent
from runner.results.reader import ResultsFile, open_results
from runner.store.transitions import Selection

run_async, resume_async, rerun_async = run_api.run, run_api.resume, rerun_api.rerun


def run(
    manifest: Path | str,
    *,
    output: Path | str | None = None,
    options: RunOptions = RunOptions(),
    observe: Observer = ignore,
) -> RunResult:
    """
    Run a manifest to its end. The same call again continues where it stopped.

    Asynchronous code awaits `run_async`, or uses `follow` to get the events.

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
    run_dir: Path | str, *, options: RunOptions = RunOptions(), observe: Observer = ignore
) -> RunResult:
    """Continue a run without its manifest; otherwise like `run`."""
    return asyncio.run(run_api.resume(Path(run_dir), options=options, observe=observe))


def rerun(
    run_dir: Path | str,
    selection: Selection = Selection(),
    *,
    options: RunOptions = RunOptions(),
    observe: Observer = ignore,
) -> RunResult:
    """
    Run again what did not succeed, and pay again only for what failed; otherwise like `run`.

    Uncertain jobs, lost ones, and those that moderation or the API's own checks refused are left alone unless
    their class is selected.
    """
    return asyncio.run(rerun_api.rerun(Path(run_dir), selection, options=options, observe=observe))


class RunStream:
    """
    The events of a run: an asynchronous iterator that ends with the run.

    Events that were not read yet are kept in memory.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._engine: Engine | None = None
        self._task: asyncio.Task[RunResult]

    @property
    def result(self) -> RunResult:
        """
        The result of the run, once the iteration has ended.

        Raises:
            RunnerError: The run could not begin or continue.
        """
        return self._task.result()

    def stop(self) -> None:
        """Stop as the first Ctrl-C does: submit no more, wait for the answers to POSTs, lose nothing."""
        if self._engine is None:
            # Nothing can have been sent before there is an engine.
            self._task.cancel()
        else:
            self._engine.stop(Stop(StopReason.INTERRUPTED, "the calling program stopped the run"))

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[RunEvent]:
        while (event := await self._queue.get()) is not None:
            yield event
        # An error of the run is the iteration's.
        await self._task


@asynccontextmanager
async def follow(
    manifest: Path | str, *, output: Path | str | None = None, options: RunOptions = RunOptions()
) -> AsyncIterator[RunStream]:
    """
    Run a manifest and get its events; leaving the block early stops the run without losing anything.

    In ``async with follow("kittens.yaml") as events:`` use ``async for event in events:``, and after that
    ``events.result``.
    """
    stream = RunStream()

    def on_started(engine: Engine) -> None:
        stream._engine = engine

    task = asyncio.create_task(
        run_api.run(
            Path(manifest),
            output=None if output is None else Path(output),
            options=options,
            observe=stream._queue.put_nowait,
            on_started=on_started,
        ),
        name="run",
    )
    stream._task = task
    task.add_done_callback(lambda _: stream._queue.put_nowait(None))
    try:
        yield stream
    finally:
        if not task.done():
            stream.stop()
            await asyncio.wait([task])


def read_results(path: Path | str) -> ResultsFile:
    """
    Open the results of a run: a ``results.jsonl``, plain or gzipped, or its run directory.

    Iterating yields one result per job, whose ``record`` has all that is known of the job.

    Raises:
        ResultsError: There are none, or they can't be read.
    """
    file = Path(path)
    return open_results(file / RESULTS_NAME if file.is_dir() else file)
