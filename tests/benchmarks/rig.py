"""What every benchmark needs: processes on a CPU of their own and what they took, the gateway, and medians."""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
"""A file system in memory, for what is not to be measured."""

Measured = TypeVar("Measured")

_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


class Wrong(Exception):
    """A run did not do what it was measured for, so its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took: seconds of the clock, CPU seconds (its threads included), and its largest resident size."""

    ended_at: float
    wall_s: float
    cpu_s: float
    peak_mib: float
    stdout: str


@dataclass(frozen=True, slots=True)
class Row:
    """
    One figure of the table.

    Attributes:
        against: The floor or the peer that it is a ratio to.
        must: What it has to reach, and `aim` what it is meant to reach, as the table shows them.
        value: What was measured.
        note: Absolute figures, or what there is to know.
    """

    what: str
    against: str
    must: str
    aim: str
    value: str
    note: str = ""


def ratio(values: Sequence[float], *, digits: int = 2) -> str:
    """
    Write the median of some ratios, and how far apart they were.

    >>> ratio([0.5, 0.7, 0.6])
    '0.60 (0.50..0.70)'
    """
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    codes: Sequence[int] = (0,),
    on_one_cpu: bool = True,
) -> Taken:
    """
    Run a Python program to its end, on the first CPU or wherever the system puts its threads.

    Raises:
        Wrong: It failed.
    """
    words = [sys.executable, *map(str, command)]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPATH": str(ROOT), "POWERTOKENS_API_KEY": "sk-benchmark", **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            pinned(0, words) if on_one_cpu else words, env=environ, cwd=ROOT, stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode()
        if process.returncode not in codes:
            raise Wrong(
                f"{' '.join(words[1:4])} ended with {process.returncode}: {err.read().decode()[-2000:]}"
            )
    return Taken(ended, ended - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def other(words: Sequence[str | Path]) -> Taken:
    """Run any program to its end, whatever comes of it, wherever the system puts it."""
    began = time.monotonic()
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Taken(ended, ended - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, "")


def pinned(which: int, words: list[str]) -> list[str]:
    """Return a command that runs on one CPU, if there are several."""
    if len(_CPUS) < 2 or not Path("/usr/bin/taskset").exists():
        return words
    return ["taskset", "-c", str(_CPUS[which % len(_CPUS)]), *words]


class Gateway:
    """
    The fast gateway, on the second CPU.

    Attributes:
        url: Its base URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self) -> dict[str, Any]:
        """Ask what happened since the last time."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=30) as answer:
            stats: dict[str, Any] = json.loads(answer.read())
        return stats

    def check(self, jobs: int, folder: Path) -> dict[str, Any]:
        """
        Make sure that every job was accepted exactly once, and that there is a file of each.

        Raises:
            Wrong: It was not so.
        """
        stats = self.stats()
        files = sum(1 for path in folder.rglob("*.mp4") if path.is_file())
        found = (stats["posts"], stats["distinct"], files)
        if found != (jobs, jobs, jobs):
            raise Wrong(
                f"{jobs} jobs made {found[0]} tasks of {found[1]} requests, and {found[2]} files in {folder}"
            )
        return stats


@contextmanager
def gateway(asset: Path, *, queries: int = 1, per_s: float = 0) -> Iterator[Gateway]:
    """Serve an asset; a task is still queued at its first ``queries`` queries."""
    words = [
        sys.executable,
        str(Path(__file__).with_name("gateway.py")),
        str(asset),
        str(queries),
        str(per_s),
    ]
    with subprocess.Popen(pinned(1, words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Gateway(process.stdout.readline().strip())
        finally:
            process.kill()


def video_file(path: Path, size: int) -> Path:
    """Write a whole MP4 of a certain size, padded or cut in its samples."""
    from runner.simulator.video import video, video_spec

    content = video(video_spec({"seconds": "5", "size": "480p", "ratio": "16:9"}, "ab" * 16), size=0)[:]
    boxes, at = {}, 0
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        boxes[kind] = content[at : at + length]
        at += length
    rest = size - len(boxes[b"ftyp"]) - len(boxes[b"moov"])
    with path.open("wb") as file:
        file.write(
            boxes[b"ftyp"] + boxes[b"moov"] + struct.pack(">I4s", rest, b"mdat") + boxes[b"mdat"][8:rest]
        )
        # Not made in memory: what this process once had counts as the peak of the processes that it starts.
        file.truncate(size)
    return path


def manifest(
    folder: Path,
    url: str,
    jobs: int,
    *,
    at_once: int,
    submit: str = "1000000/s",
    poll: str = "0s",
    head: str = "",
) -> Path:
    """Write a manifest of a number of jobs, its rows in JSONL; `head` is further keys of it."""
    rows = folder / f"rows-{jobs}.jsonl"
    if not rows.exists():
        with rows.open("w") as file:
            file.writelines(f'{{"n": "{n}", "p": "kitten {n}"}}\n' for n in range(jobs))
    path = folder / f"manifest-{jobs}-{at_once}{'-paid' if head else ''}.yaml"
    path.write_text(
        f"""version: 1
name: benchmark
gateway: {{base_url: '{url}'}}
limits: {{submit: {submit}, poll: 1000000/s, in_flight: {at_once}, downloads: {at_once}}}
poll: {{first: {poll}, interval: 1ms, max_interval: 1ms}}
{head}jobs:
  - id: job-${{n}}
    from: {rows.name}
    request: {{model: seedance-1-0-pro-250528, prompt: '${{p}}', seconds: '5'}}
"""
    )
    return path


def in_turn(rounds: int, *cases: Callable[[int], Measured]) -> list[list[Measured]]:
    """Take the cases in turn, round by round, and give what each measured, case by case."""
    measured: list[list[Measured]] = [[] for _ in cases]
    for number in range(rounds):
        for case, values in zip(cases, measured, strict=True):
            values.append(case(number))
    return measured
