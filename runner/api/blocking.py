"""Run from a program: blocking, asynchronous, or with the events as an iterator; of a manifest, or of mappings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ParamSpec

from runner.api import rerun as rerun_api
from runner.api import run as run_api
from runner.api.options import DEFAULT_OPTIONS, RunOptions
from runner.api.run_facts import default_run_dir
from runner.api.run_result import Callbacks, OnStarted, RunResult
from runner.core.filenames import MANIFEST_NAME, RESULTS_NAME
from runner.core.stop import Stop, StopReason
from runner.disk import AnyPath, require_encodable
from runner.engine.events import ActiveRun, Observer, RunEvent, guarded, ignore
from runner.errors import UsageError
from runner.results.failed_manifest import yaml_flow
from runner.results.reader import ResultsFile, open_results
from runner.results.writers import atomic_write
from runner.store.transitions import Selection
from runner.store.writer import to_the_end

_Arguments = ParamSpec("_Arguments")


async def run_async(
    manifest: AnyPath | None = None,
    *,
    jobs: JobMappings | None = None,
    name: str = "jobs",
    settings: Mapping[str, Any] | None = None,
    output: AnyPath | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    observe: Observer = ignore,
    on_started: OnStarted = ignore,
) -> RunResult:
    """
    Run a manifest, or jobs, to the end. The same call again continues where it stopped, and pays for nothing twice.

    Canceling it is as the first Ctrl-C, and canceling it again as the second one.

    Args:
        jobs: In place of a manifest: mappings as under ``jobs`` of a manifest, such as
            ``{"id": "sky", "request": {"model": ..., "prompt": ...}}``; any iterable, read once. They are written to
            ``manifest.yaml`` in the run directory. Relative paths begin in the working directory.
        name: Of a run of `jobs`.
        settings: For `jobs`: the other keys of a manifest, such as ``limits`` or ``defaults``.
        output: The run directory; by default ``output/`` and the name of the manifest.
        observe: Gets each `JobEnded` and `Notice` as it happens. An exception in it is logged, and the run continues.

    Raises:
        ManifestError: The manifest has errors; nothing was sent.
        CredentialsMissing: No key is set; nothing was sent.
        RunDirError: The run directory can't be used.
        UsageError: The arguments do not fit together.
    """
    if (manifest is None) == (jobs is None):
        raise UsageError("name a manifest, or pass jobs=, and not both")
    folder = None
    run_dir = None if output is None else Path(output)
    if jobs is not None:
        folder = Path.cwd()
        manifest = write_job_mappings(
            jobs, name=name, settings=settings or {}, output=run_dir, simulate=options.simulate
        )
        run_dir = manifest.parent
    elif settings is not None or name != "jobs":
        raise UsageError("name= and settings= are for jobs=; a manifest has its own")
    assert manifest is not None
    callbacks = Callbacks(guarded(observe), on_started=on_started)
    return await run_api.run(Path(manifest), callbacks, output=run_dir, folder=folder, options=options)


async def resume_async(
    run_dir: AnyPath, *, options: RunOptions = DEFAULT_OPTIONS, observe: Observer = ignore
) -> RunResult:
    """Continue a run without its manifest; otherwise like `run_async`."""
    return await run_api.resume(Path(run_dir), Callbacks(guarded(observe)), options=options)


async def rerun_async(
    run_dir: AnyPath,
    selection: Selection = Selection(),
    *,
    options: RunOptions = DEFAULT_OPTIONS,
    observe: Observer = ignore,
) -> RunResult:
    """
    Run again what did not succeed, and pay again only for what failed; otherwise like `run_async`.

    Uncertain jobs, lost ones, and those that moderation or the API's own checks refused are skipped unless
    their class is selected.
    """
    return await rerun_api.rerun(
        Path(run_dir), selection, options=options, callbacks=Callbacks(guarded(observe))
    )


def _blocking(start: Callable[_Arguments, Coroutine[Any, Any, RunResult]]) -> Callable[_Arguments, RunResult]:
    """Return a function that does the same as one whose result is awaited, and waits for it."""
    name = start.__name__.removesuffix("_async")

    @wraps(start)
    def wait(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> RunResult:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise UsageError(
                f"runner.{name} can't wait where an event loop is running, as in a notebook; use runner.{name}_async",
                hint=f"write: await runner.{name}_async(...)",
            )
        try:
            running = start(*args, **kwargs)
        except TypeError as error:
            # Nothing of it has run yet, so that the arguments are wrong. Python names the function that is called here.
            raise TypeError(str(error).replace(start.__name__, name)) from None
        return asyncio.run(running)

    wait.__name__ = wait.__qualname__ = name
    return wait


run, resume, rerun = _blocking(run_async), _blocking(resume_async), _blocking(rerun_async)
"""Like the asynchronous functions; where an event loop is running, as in a notebook, await those. `follow` gives the events."""


class RunStream:
    """
    The events of a run: an asynchronous iterator that ends with the run.

    Events that were not read yet are kept in memory.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._engine: ActiveRun | None = None
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

    def _abandon(self) -> None:
        if self._engine is not None:
            self._engine.abandon()

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[RunEvent]:
        while (event := await self._queue.get()) is not None:
            yield event
        # An error of the run is the iteration's.
        await self._task


@asynccontextmanager
async def follow(
    manifest: AnyPath | None = None,
    *,
    jobs: JobMappings | None = None,
    name: str = "jobs",
    settings: Mapping[str, Any] | None = None,
    output: AnyPath | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
) -> AsyncIterator[RunStream]:
    """
    Run a manifest, or jobs, and get the events; leaving the block early stops the run without losing anything.

    In ``async with follow("kittens.yaml") as events:`` use ``async for event in events:``, and after that
    ``events.result``. The arguments are those of `run_async`.
    """
    stream = RunStream()

    def on_started(engine: ActiveRun) -> None:
        stream._engine = engine

    task = asyncio.create_task(
        run_async(
            manifest,
            jobs=jobs,
            name=name,
            settings=settings,
            output=output,
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
            await to_the_end(lambda: asyncio.wait([task]), on_cancel=stream._abandon)


def read_results(path: AnyPath) -> ResultsFile:
    """
    Open the results of a run: a ``results.jsonl``, plain or gzipped, or its run directory.

    Iterating yields one result per job, whose ``record`` has all that is known of the job.

    Raises:
        ResultsError: There are none, or they can't be read.
    """
    file = Path(path)
    return open_results(file / RESULTS_NAME if file.is_dir() else file)


JobMappings = Iterable[Mapping[str, Any]]
"""Jobs as in a manifest: each a mapping with ``request``, and ``id``, ``metadata`` and so on if wanted."""


def write_job_mappings(
    jobs: JobMappings,
    *,
    name: str,
    settings: Mapping[str, Any],
    output: Path | None,
    simulate: bool,
) -> Path:
    """
    Write a manifest, and return its path; the jobs are read once and in constant memory.

    Args:
        name: Of the run.
        settings: The other keys of the manifest, such as ``limits`` or ``defaults``.
        output: The run directory; None for the default in the working directory.

    Raises:
        UsageError: A job is not a mapping, or has a value that JSON does not have.
    """
    run_dir = output or default_run_dir(Path.cwd() / MANIFEST_NAME, name, simulate=simulate)
    require_encodable([run_dir])
    run_dir.mkdir(parents=True, exist_ok=True)
    header = {"version": 1, "name": name, **settings}
    with atomic_write(run_dir / MANIFEST_NAME) as file:
        for key, value in header.items():
            file.write(f"{key}: {_flow(value, key)}\n".encode())
        number = -1
        for number, job in enumerate(jobs):
            if not isinstance(job, Mapping):
                raise UsageError(
                    f"jobs[{number}] is a {type(job).__name__}, not a mapping",
                    hint='a job is such as {"id": "sky", "request": {"model": ..., "prompt": ...}}',
                )
            file.write(
                (b"jobs:\n" if number == 0 else b"") + f"  - {_flow(job, f'jobs[{number}]')}\n".encode()
            )
        if number < 0:
            file.write(b"jobs: []\n")
    return run_dir / MANIFEST_NAME


def _flow(value: Any, place: str) -> str:
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False)
        text.encode()
        return yaml_flow(json.loads(text))
    except UnicodeEncodeError as error:
        # It would be sent as a question mark.
        half = ascii(error.object[error.start])
        raise UsageError(
            f"{place}: {half} is half of a surrogate pair, which is not a character",
            hint="read texts as UTF-8, and replace what is not: bytes.decode(errors='replace')",
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{place}: {error}") from None


def _plain(value: Any) -> Any:
    """Convert what programs have in place of JSON's types: paths, mappings, and scalars of numeric libraries."""
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if callable(item := getattr(value, "item", None)):
        return item()
    raise TypeError(f"a {type(value).__name__} can't be sent as JSON")
