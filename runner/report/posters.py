"""First pictures of the videos on a page, so that it shows them before a video is read."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from runner.core.filenames import ASSETS_NAME

MAX_POSTERS = 1_000
"""Of a page, for the videos that it shows first: each has some 6 kB."""
_LIMIT_S = 30.0
_LIMIT_OF_ONE_S = 10.0
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")
_PROGRAM = (sys.executable, "-P", "-m", "runner.media.decode")


class PosterMaker:
    """
    Makes posters in a process of its own, and keeps them; without the extra ``media`` it makes none.

    Args:
        run_dir: The run directory, below whose ``assets/`` the videos are.
        program: How the process is started.
        limit_of_one_s: How long one video may take.
    """

    def __init__(
        self, run_dir: Path, *, program: tuple[str, ...] = _PROGRAM, limit_of_one_s: float = _LIMIT_OF_ONE_S
    ) -> None:
        self._run_dir = run_dir
        self._program = program
        self._limit_of_one_s = limit_of_one_s
        self._known: dict[str, str | None] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def posters(self, videos: Iterable[str]) -> Mapping[str, str]:
        """
        Return posters by the path of the video, as JPEG in base64, as many as half a minute is enough for.

        Args:
            videos: Paths relative to the run directory, those to be shown first at the start.
        """
        if find_spec("av") is None:
            return {}
        until = time.monotonic() + _LIMIT_S
        folder = (self._run_dir / ASSETS_NAME).resolve()
        try:
            for video in list(videos)[:MAX_POSTERS]:
                if video not in self._known:
                    if time.monotonic() > until:
                        break
                    path = (self._run_dir / video).resolve()
                    # The paths may be of a foreign directory.
                    is_own = path.is_relative_to(folder) and path.is_file()
                    self._known[video] = self._ask(path) if is_own else None
        finally:
            self._end()
        return {video: poster for video, poster in self._known.items() if poster is not None}

    def _ask(self, path: Path) -> str | None:
        """Return the poster of a video; None if it can't be decoded, or the process crashed or hung over it."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # It reads foreign files, and needs no keys.
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(str(path)) + b"\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                if not selector.select(self._limit_of_one_s):
                    raise TimeoutError
            return msgspec.json.decode(self._process.stdout.readline(), type=str | None)
        except (OSError, msgspec.DecodeError):
            self._end()
            return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
