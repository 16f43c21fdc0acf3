"""
Runs of the program in processes that are killed where a test wants it.

This module is also a program, which imports everything once and forks a process for each
run, so that hundreds of kills take seconds. Each run has a process of its own with its own
event loop and threads, and is killed by SIGKILL, as by `kill -9`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from tests.acceptance.forked_process import ForkedProcess

POINTS = ("commit", "rename", "append", "post")
"""
Where a run can be killed: at a commit of the store, when a complete file gets its name (an asset, or one of
the derived files), when results are appended, at a POST. A run with a budget can be killed at each commit of its
ledger too (``ledger``).
"""
COMMAND_POINTS = (*POINTS, "transaction", "unlink")
"""Where other commands can be killed besides: at a transaction outside of a run, and when a file is deleted."""
UPLOAD_POINTS = ("upload", "head", "remove")
"""Where a run with `--assets` can be killed besides: at an upload, when it looks at what arrived, when it deletes files here."""


STOPPED = -1
"""In the place of the exit code of a process that is stopped."""


@dataclass(frozen=True, slots=True)
class KillPoint:
    """
    Kill the process just before or just after the nth time (from 1) that a point is reached.

    Attributes:
        is_stopped: The process is stopped there (SIGSTOP), and can continue later.
    """

    point: str
    when: str
    nth: int
    is_stopped: bool = False


class ForkServer:
    """The process that forks a process for each run."""

    def __init__(self, process: ForkedProcess) -> None:
        self._process = process

    def run_once(
        self,
        manifest: Path,
        run_dir: Path,
        *,
        kill_at: KillPoint | None = None,
        kill_after_s: float | None = None,
        **options: Any,
    ) -> int | None:
        """
        Run a manifest in a process of its own, and return its exit code; None if it was killed, -1 if it is stopped.

        Further arguments are options of the run.
        """
        return self._start(
            kill_at, kill_after_s, manifest=str(manifest), run_dir=str(run_dir), options=options
        )

    def run_command(self, *arguments: str | Path, kill_at: KillPoint | None = None) -> int | None:
        """Run a command in a process of its own, and return its exit code; None if it was killed."""
        return self._start(kill_at, None, arguments=[str(argument) for argument in arguments])

    def _start(self, kill_at: KillPoint | None, kill_after_s: float | None, **what: Any) -> int | None:
        request = {
            "kill_at": None if kill_at is None else list(astuple(kill_at)),
            "kill_after_s": kill_after_s,
            **what,
        }
        return self._ask(request)

    def continue_stopped(self) -> int | None:
        """Let the process continue that was stopped last, and return its exit code."""
        return self._ask(None)

    def _ask(self, request: dict[str, Any] | None) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        exit_code: int | None = json.loads(self._process.stdout.readline())
        return exit_code


@contextmanager
def fork_server(environ: dict[str, str]) -> Iterator[ForkServer]:
    """Start the forking process for the length of a block."""
    with ForkedProcess(
        "tests.acceptance.crash_harness:main", [], environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield ForkServer(process)
        finally:
            process.kill()


# What follows runs in the other process.


def main() -> None:
    """Answer requests until the end of the input."""
    stopped = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            os.kill(stopped, signal.SIGCONT)
            print(json.dumps(_wait(stopped, None)), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _run(request)
        exit_code = _wait(child, request["kill_after_s"])
        if exit_code == STOPPED:
            stopped = child
        print(json.dumps(exit_code), flush=True)


def _run(request: dict[str, Any]) -> None:
    import asyncio

    from runner.api.options import RunOptions
    from runner.api.run import run
    from runner.cli.main import run_command_line

    try:
        if request["kill_at"]:
            _install(KillPoint(*request["kill_at"]))
        if "arguments" in request:
            # The answers to requests go to the standard output.
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            os._exit(run_command_line(request["arguments"]))
        options = RunOptions(**request["options"])
        result = asyncio.run(run(Path(request["manifest"]), output=Path(request["run_dir"]), options=options))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(99)
    os._exit(result.exit_code)


def _wait(child: int, kill_after_s: float | None) -> int | None:
    if kill_after_s is not None:
        import time

        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        return STOPPED
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _function_of(point: str) -> tuple[Any, str]:
    """Return the function at which a kill point is, by its owner and its name."""
    from runner.api import job_steps
    from runner.assets import publish
    from runner.gateway.client import GatewayClient
    from runner.objects.base import FolderStore
    from runner.results.writers import ResultsWriter
    from runner.store.journal import Journal
    from runner.store.ledger import Ledger
    from runner.store.store import Store
    from runner.store.writer import Writer
    from runner.worker.deliver import Deliverer

    functions: dict[str, tuple[Any, str]] = {
        "commit": (Writer, "_commit"),
        "ledger": (Ledger, "_commit"),
        "rename": (os, "replace"),
        "append": (ResultsWriter, "append"),
        "post": (GatewayClient, "submit"),
        "base": (Journal, "write_base"),
        "intent": (job_steps, "uptime"),
        "transaction": (Store, "transaction"),
        "unlink": (os, "unlink"),
        "upload": (publish, "upload"),
        "head": (FolderStore, "head"),
        "remove": (Deliverer, "remove_files"),
    }
    return functions[point]


def _install(kill_at: KillPoint) -> None:
    owner, name = _function_of(kill_at.point)
    reached = 0
    original = getattr(owner, name)
    if kill_at.point == "intent":
        # As if the machine slept for an hour after it.
        setattr(owner, name, chain([original()], (original() + 3600 for _ in count())).__next__)
        return

    def kill_if(when: str, number: int) -> None:
        if (when, number) == (kill_at.when, kill_at.nth):
            os.kill(os.getpid(), signal.SIGSTOP if kill_at.is_stopped else signal.SIGKILL)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal reached
        number = reached = reached + 1
        kill_if("before", number)
        try:
            return original(*args, **kwargs)
        finally:
            kill_if("after", number)

    async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
        nonlocal reached
        # Others are reached while this one's answer is awaited.
        number = reached = reached + 1
        kill_if("before", number)
        result = await original(*args, **kwargs)
        kill_if("after", number)
        return result

    @contextmanager
    def wrapped_block(*args: Any) -> Iterator[Any]:
        nonlocal reached
        number = reached = reached + 1
        with original(*args) as value:
            yield value
            kill_if("before", number)
        kill_if("after", number)

    wrappers = {"post": wrapped_async, "transaction": wrapped_block}
    setattr(owner, name, wrappers.get(kill_at.point, wrapped))
