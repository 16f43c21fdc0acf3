"""
Processes of the runner that are killed where a test wants it.

The program of this file imports everything once and forks a process for each life,
so that hundreds of deaths take seconds. Each life is a process of its own with its own
event loop and threads, and dies by SIGKILL, as in a power cut or by `kill -9`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

POINTS = ("commit", "rename", "append", "post")
"""
Where a life can be cut: at a commit of the store, at the naming of a whole file (an asset, or one of the
derived files), at the appending of results, at a POST.
"""


@dataclass(frozen=True, slots=True)
class Cut:
    """Die just before or just after the nth time (from 1) that a point is reached."""

    point: str
    when: str
    nth: int


@dataclass(frozen=True, slots=True)
class Death:
    """How a life ended: by its own exit code, or killed."""

    exit_code: int | None

    @property
    def was_killed(self) -> bool:
        return self.exit_code is None


class Mortals:
    """The process that makes lives."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(
        self, manifest: Path, run_dir: Path, *, cut: Cut | None = None, killed_after_s: float | None = None
    ) -> Death:
        """Run a manifest in a process of its own, and wait for its end, natural or not."""
        wish = {
            "manifest": str(manifest),
            "run_dir": str(run_dir),
            "cut": None if cut is None else [cut.point, cut.when, cut.nth],
            "killed_after_s": killed_after_s,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(wish), file=self._process.stdin, flush=True)
        return Death(json.loads(self._process.stdout.readline()))


@contextmanager
def mortals(environ: dict[str, str]) -> Iterator[Mortals]:
    """Start the process that makes lives, for the length of a block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.mortal"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Mortals(process)
        finally:
            process.kill()


# What follows runs in the other process.


def _main() -> None:
    import runner.api.run
    import runner.report.page
    import runner.results.failed_manifest  # noqa: F401

    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if child == 0:
            _live(wish)
        print(json.dumps(_wait(child, wish["killed_after_s"])), flush=True)


def _live(wish: dict[str, Any]) -> None:
    import asyncio

    from runner.api.run import run

    try:
        if wish["cut"]:
            _install(Cut(*wish["cut"]))
        outcome = asyncio.run(run(Path(wish["manifest"]), output=Path(wish["run_dir"])))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(99)
    os._exit(outcome.exit_code)


def _wait(child: int, killed_after_s: float | None) -> int | None:
    if killed_after_s is not None:
        import time

        time.sleep(killed_after_s)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _install(cut: Cut) -> None:
    from runner.gateway.client import GatewayClient
    from runner.results.files import ResultsWriter
    from runner.store.writer import Writer

    owner, name = {
        "commit": (Writer, "_commit"),
        "rename": (os, "replace"),
        "append": (ResultsWriter, "append"),
        "post": (GatewayClient, "submit"),
    }[cut.point]
    reached = 0
    inner = getattr(owner, name)

    def die(when: str, number: int) -> None:
        if (when, number) == (cut.when, cut.nth):
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal reached
        number = reached = reached + 1
        die("before", number)
        result = inner(*args, **kwargs)
        die("after", number)
        return result

    async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
        nonlocal reached
        # Others are reached while this one's answer is awaited.
        number = reached = reached + 1
        die("before", number)
        result = await inner(*args, **kwargs)
        die("after", number)
        return result

    setattr(owner, name, wrapped_async if cut.point == "post" else wrapped)


if __name__ == "__main__":
    _main()
