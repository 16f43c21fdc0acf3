"""Processes that measure videos: as many as there are cores, and one more for each that crashed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from runner.checks.judge import Measures
from runner.commands import environment_without_keys, kill_group
from runner.core.units import format_duration
from runner.errors import UsageError, install_hint

LIMIT_S = 120.0
"""How long one video may take; one of ten seconds takes half a second."""
_PROGRAM = (sys.executable, "-P", "-m", "runner.checks.measure")


class NotMeasured(Exception):
    """A video could not be measured; the message says why, as the end of a sentence."""


class _Answer(Struct):
    measures: Measures | None = None
    problem: str = ""


def require_decoder() -> None:
    """
    Check that the extra is installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise UsageError("checks of what a video shows need PyAV", hint=install_hint("media")) from None


class MeasuringPool:
    """
    Measures videos in processes that are started when they are needed.

    Args:
        key_names: Variables that the processes do not get.
        program: How a process is started.
    """

    def __init__(
        self,
        key_names: Iterable[str],
        *,
        program: tuple[str, ...] = _PROGRAM,
        processes: int | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._environ = environment_without_keys(key_names)
        self._program = program
        self.size = processes or _cores()
        self._limit_s = limit_s
        self._free = asyncio.Semaphore(self.size)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self._all):
            await self._end(process)

    async def measure(self, path: str) -> Measures:
        """
        Measure a video.

        Raises:
            NotMeasured: It can't be decoded, took too long, or the process crashed.
        """
        async with self._free:
            process = self._idle.pop() if self._idle else await self._start()
            try:
                async with asyncio.timeout(self._limit_s):
                    answer = await _ask(process, path)
            except TimeoutError:
                await self._end(process)
                raise NotMeasured(f"was not checked within {format_duration(self._limit_s)}") from None
            except (OSError, msgspec.DecodeError):
                await self._end(process)
                raise NotMeasured(f"made the process that checked it end with {process.returncode}") from None
            except BaseException:
                await self._end(process)
                raise
            self._idle.append(process)
            if answer.measures is None:
                raise NotMeasured(answer.problem)
            return answer.measures

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
                # A signal from the terminal is for the run, which decides what becomes of its checks.
                start_new_session=True,
            )
        except OSError as error:
            raise NotMeasured(f"was not checked: no process can be started ({error.strerror})") from None
        self._all.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        with contextlib.suppress(ValueError):
            self._idle.remove(process)
        kill_group(process.pid)
        await process.wait()


async def _ask(process: asyncio.subprocess.Process, path: str) -> _Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(path) + b"\n")
    await process.stdin.drain()
    # An empty line at the end of the output is not an answer, and so a crash.
    return msgspec.json.decode(await process.stdout.readline(), type=_Answer)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
