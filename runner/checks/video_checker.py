"""
Check videos, job by job, by measuring them and with the user's command; during a run in the background.

The command of `on_asset` is started for each finished asset, and its answer goes into the results.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct, field

from runner.checks.duplicate_videos import NearDuplicates
from runner.checks.judge import NEEDS_DECODER, Findings, Measures, judge
from runner.checks.pool import MeasuringPool, NotMeasured
from runner.commands import CommandFailed, environment_without_keys, run_command
from runner.core.lifecycle import State
from runner.core.model import Asset, AssetKind, Job, JobRecord, Json
from runner.core.sanitize import sanitize_line
from runner.core.settings import Check, OnAsset
from runner.errors import RunnerError
from runner.jsontext import dumps, loads
from runner.store import query, takes
from runner.store.store import Store

MAX_ANSWER_BYTES = 64 << 10
_MAX_KEYS = 100
_KEY_CHARS = 100
_TEXT_CHARS = 2000
_DEPTH = 8
_TAKEN = frozenset(Check) | {"duplicate"}
"""Names in `checks` that are the program's own."""


class AssetHook:
    """
    Runs the command, a few at a time.

    Args:
        key_names: Variables that the command does not get.
        run_dir: Absolute.
        folder: Where it is started; None for the working directory.
    """

    def __init__(
        self, hook: OnAsset, key_names: Iterable[str], run_dir: Path, folder: Path | None = None
    ) -> None:
        self._hook = hook
        self._environ = environment_without_keys(key_names)
        self._run_dir, self._folder = run_dir, folder
        self.at_once = hook.at_once
        self._free = asyncio.Semaphore(hook.at_once)

    async def ask(self, record: JobRecord, asset: Asset) -> dict[str, Json]:
        """
        Run the command for an asset, and return its answer.

        Raises:
            CommandFailed: It failed, or its answer is no JSON object.
        """
        text = dumps(
            {
                "path": f"{self._run_dir}/{asset.path}",
                "job_id": record.job_id,
                "kind": asset.kind.value,
                "model": record.model,
                "metadata": dict(record.metadata),
                "sha256": asset.sha256,
                "width": asset.width,
                "height": asset.height,
                "duration_s": asset.duration_s,
            }
        )
        async with self._free:
            output = await run_command(
                self._hook.command,
                text + b"\n",
                environ=self._environ,
                limit_s=self._hook.timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
                folder=self._folder,
            )
        label = f"the command {self._hook.command[0]!r}"
        if output.is_cut:
            raise CommandFailed(f"{label} answered with more than {MAX_ANSWER_BYTES} bytes")
        if not output.stdout.strip():
            return {}
        try:
            answer = loads(output.stdout)
        except (ValueError, RecursionError):
            raise CommandFailed(f"{label} answered with something else than JSON") from None
        if not isinstance(answer, dict):
            raise CommandFailed(f"{label} answered with JSON that is not an object")
        if taken := sorted(answer.keys() & _TAKEN):
            raise CommandFailed(f"{label} answered with {str(taken[0])!r}, which is the name of a check")
        cleaned: dict[str, Json] = clean(answer)
        return cleaned


def clean(value: Json, depth: int = _DEPTH) -> Json:
    r"""
    Return a foreign value fit for the results: without control characters, of bounded size and depth.

    >>> clean({"label": "a\x1b[31m kitten", "scores": [0.5, True, None]})
    {'label': 'a kitten', 'scores': [0.5, True, None]}
    """
    if isinstance(value, str):
        return sanitize_line(value, max_chars=_TEXT_CHARS)
    if isinstance(value, dict):
        if not depth:
            return None
        items = list(value.items())[:_MAX_KEYS]
        return {sanitize_line(key, max_chars=_KEY_CHARS): clean(item, depth - 1) for key, item in items}
    if isinstance(value, list):
        return [clean(item, depth - 1) for item in value[:_MAX_KEYS]] if depth else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        # No column of a data frame holds it.
        return str(value)
    return value


Row = dict[str, Json]
"""What is kept of the checks of a job: ``checks``, ``warnings`` and ``verdict``."""


class VideoChecker(Struct):
    """
    Checks videos of one run.

    Args:
        pool: None if pictures can't be decoded here.
        hook: The user's own command, or None.
        job_id_of: Returns the id of a job by its key in the store.
    """

    run_dir: str
    checks: Collection[Check]
    reject: Collection[Check]
    pool: MeasuringPool | None
    hook: AssetHook | None
    job_id_of: Callable[[int], str]
    _seen: NearDuplicates = field(default_factory=NearDuplicates)

    @property
    def at_once(self) -> int:
        """How many checks of jobs make sense at the same time."""
        pool, hook = self.pool, self.hook
        return max(1, (0 if pool is None else pool.size) + (0 if hook is None else hook.at_once))

    def remember(self, seq: int, row: Row) -> None:
        """Take over the hash of a video that was checked before."""
        near = (row.get("checks") or {}).get(Check.NEAR_DUPLICATE) or {}
        if near.get("hash"):
            self._seen.add(near["hash"], seq)

    async def examine(self, record: JobRecord) -> tuple[Findings, Measures | None]:
        """Judge a job's video without the others of the run; it takes a while."""
        video = next(asset for asset in record.assets if asset.kind is AssetKind.VIDEO)
        findings, measures = Findings(), None
        if self.pool is not None and {*NEEDS_DECODER, Check.SILENT} & {*self.checks}:
            try:
                measures = await self.pool.measure(f"{self.run_dir}/{video.path}")
            except NotMeasured as error:
                findings.warnings.append(f"the video was not checked: it {error}")
        found = judge(video, record.request, self.checks, measures)
        findings.checks.update(found.checks)
        findings.warnings += found.warnings
        if self.hook is not None:
            await self._ask_hook(self.hook, record, findings)
        return findings, measures

    async def _ask_hook(self, hook: AssetHook, record: JobRecord, findings: Findings) -> None:
        for asset in record.assets:
            try:
                findings.checks |= await hook.ask(record, asset)
            except CommandFailed as error:
                findings.warnings.append(f"on_asset: {error}")

    def finish(self, seq: int, findings: Findings, measures: Measures | None) -> Row:
        """Compare a video with those before it, and return what is kept of its checks."""
        if Check.NEAR_DUPLICATE in self.checks and measures is not None:
            self._find_near(seq, findings, measures.picture_hash)
        return {
            "checks": findings.checks,
            "warnings": findings.warnings,
            "verdict": findings.verdict(self.reject),
        }

    def _find_near(self, seq: int, findings: Findings, picture_hash: str | None) -> None:
        near = None if picture_hash is None else self._seen.add(picture_hash, seq)
        job_id = None if near is None else self.job_id_of(near[0])
        problem = None if job_id is None else f"the video looks like that of {job_id!r}"
        findings.add(
            Check.NEAR_DUPLICATE,
            problem,
            of=job_id,
            bits=None if near is None else near[1],
            hash=picture_hash,
        )


def has_video(assets: Collection[Asset]) -> bool:
    """Return whether there is a video to check."""
    return any(asset.kind is AssetKind.VIDEO for asset in assets)


log = logging.getLogger(__name__)

_LOOK_S = 0.2


class RunningChecks:
    """
    Checks jobs as they succeed, a few at a time; nothing of the run waits for it.

    Args:
        files_of: Keeps the files of a job on this machine until its block ends.
    """

    def __init__(
        self,
        store: Store,
        checker: VideoChecker,
        files_of: Callable[[JobRecord], AbstractAsyncContextManager[None]] = lambda record: nullcontext(),
    ) -> None:
        self._store = store
        self._files_of = files_of
        self._checker = checker
        self._queue: deque[tuple[int, int]] = deque()
        self._earlier: array[int] = array("q")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cancel()

    @property
    def left(self) -> int:
        """Jobs that are not checked yet."""
        return len(self._queue) + len(self._earlier) + len(self._tasks)

    def add(self, job: Job) -> None:
        """Add a job that succeeded, and was saved."""
        self._queue.append((job.seq, job.commit))
        self._start_one()

    def add_earlier(self, seqs: Iterable[int]) -> None:
        """Add jobs whose videos an earlier process left unchecked; what succeeds now comes before them."""
        self._earlier = array("q", seqs)
        self._earlier.reverse()
        for _ in self._earlier[: self._checker.at_once]:
            self._start_one()

    def _start_one(self) -> None:
        if len(self._tasks) < self._checker.at_once:
            task = asyncio.create_task(self._work(), name="checks")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, is_stopped: Callable[[], bool]) -> int:
        """Wait for the checks that are left, unless the run is to end at once; return how many were not made."""
        while self._tasks and not is_stopped():
            await asyncio.wait(self._tasks, timeout=_LOOK_S)
        left = self.left
        await self._cancel()
        return left

    async def _cancel(self) -> None:
        self._queue.clear()
        del self._earlier[:]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue or self._earlier:
            seq, commit = self._queue.popleft() if self._queue else (self._earlier.pop(), 0)
            try:
                await self._store.durable(commit)
                await self._check(seq)
            except (RunnerError, sqlite3.DatabaseError):
                # The store can't be used: the run stops for that, and says so.
                return
            except Exception:
                log.exception("a bug in runner ended the checks of a job")

    async def _check(self, seq: int) -> None:
        record = next(query.records(self._store.reader, [seq]))
        if record.state is not State.SUCCEEDED or not has_video(record.assets):
            return
        number = takes.attempt_number(self._store.reader, seq)
        async with self._files_of(record):
            findings, measures = await self._checker.examine(record)
            self._store.save_findings(seq, number, self._checker.finish(seq, findings, measures))
