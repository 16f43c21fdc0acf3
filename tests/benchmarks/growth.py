"""What a job costs in runs of a thousand to a million jobs, and over the time of a long run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import rig
from tests.benchmarks.end_to_end import SMALL_BYTES, rig_folder
from tests.benchmarks.rig import Gateway, Row

_LOOKS = 400
"""At a run of some hundred jobs a second; each counts the lines of results that are new."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """How far a run was at a moment: lines of results, and the CPU seconds so far."""

    lines: int
    cpu_s: float


class Cost(NamedTuple):
    """
    What one run took; times are microseconds of CPU a job.

    Attributes:
        start_us: Until the first job ended: imports, reading and storing the jobs.
        work_us: Until the last job ended, line of results included.
        end_us: The rest: results in the order of the manifest, summary and report.
        parts_us: Of each twentieth of the jobs, while they were worked on.
    """

    start_us: float
    work_us: float
    end_us: float
    parts_us: Sequence[float]
    wall_s: float
    peak_mib: float
    status_s: float
    report_us: float

    @property
    def note(self) -> str:
        """Everything but the sum, in words."""
        return (
            f"start {self.start_us:.0f}, work {self.work_us:.0f}, end {self.end_us:.0f} us a job; {self.wall_s:.0f} s, "
            f"{self.peak_mib:.0f} MiB; status {self.status_s:.2f} s, report {self.report_us:.0f} us a job"
        )


def growth(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Whole runs of a growing number of jobs; then `status` and `report` of each."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    first_us = 0.0
    with rig.gateway(asset) as server:
        for count in (jobs // 10, jobs, jobs * 10):
            cost = _measured(server, disk, memory, count)
            cpu_us = cost.start_us + cost.work_us + cost.end_us
            first_us = first_us or cpu_us
            yield Row(
                f"CPU per job, {count:,} jobs, start and end included",
                f"{jobs // 10:,} jobs",
                "1.1x",
                "1.0x",
                f"{cpu_us / first_us:.2f}",
                f"{cpu_us / 1000:.2f} ms: {cost.note}",
            )


def long_run(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """One run of a hundred times as many jobs to its end: its last tenth beside its first."""
    count = jobs * 100
    # A million of the usual assets would have 12 GB.
    asset = rig.video_file(memory / "small.mp4", 2_048)
    with rig.gateway(asset) as server:
        cost = _measured(server, disk, memory, count)
    first, last = sum(cost.parts_us[:2]) / 2, sum(cost.parts_us[-2:]) / 2
    yield Row(
        f"CPU per job of the last tenth of {count:,} jobs",
        "of the first tenth",
        "1.1x",
        "1.0x",
        f"{last / first:.2f}",
        f"{cost.note}; twentieths: {' '.join(f'{part:.0f}' for part in cost.parts_us)} us",
    )


def _measured(server: Gateway, disk: Path, memory: Path, count: int) -> Cost:
    """Run a number of jobs, check them at the gateway, and take `status` and `report`."""
    out, elsewhere = disk / f"run-{count}", memory / f"run-{count}"
    elsewhere.mkdir()
    out.mkdir()
    (out / "assets").symlink_to(elsewhere, target_is_directory=True)
    manifest = rig.manifest(rig_folder(disk), server.url, count, at_once=64)
    began = time.monotonic()
    samples, cpu_s, peak_mib = _sampled([*_RUN, manifest, "--new", "-o", out], out / "results.jsonl", count)
    wall_s = time.monotonic() - began
    server.check(count, elsewhere)
    first_s, last_s = _cpu_at(samples, 1), _cpu_at(samples, count)
    at = [_cpu_at(samples, max(1, count * part // 20)) for part in range(21)]
    status, report = (rig.run(["-m", "runner", command, out]) for command in ("status", "report"))
    return Cost(
        first_s / count * 1e6,
        (last_s - first_s) / count * 1e6,
        (cpu_s - last_s) / count * 1e6,
        [(after - before) / count * 20 * 1e6 for before, after in pairwise(at)],
        wall_s,
        peak_mib,
        status.wall_s,
        report.cpu_s / count * 1e6,
    )


_RUN = ("-m", "runner", "run")


def _sampled(words: Sequence[str | Path], results: Path, count: int) -> tuple[list[Sample], float, float]:
    """Run to the end, and return samples until all lines are there, the CPU seconds and the peak in MiB."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPATH": str(rig.ROOT), "POWERTOKENS_API_KEY": "sk-benchmark"}
    command = rig.pinned(0, [sys.executable, *map(str, words)])
    process = subprocess.Popen(
        command, env=environ, cwd=rig.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    samples: list[Sample] = []
    lines, place = 0, 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if lines < count:
            cpu_s = _cpu_s(process.pid)
            while text := _read(results, place):
                lines, place = lines + text.count(b"\n"), place + len(text)
            samples.append(Sample(lines, cpu_s))
        time.sleep(min(1.0, count / 1000 / _LOOKS))
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as errors:
        if process.returncode:
            raise rig.Wrong(f"the run ended with {process.returncode}: {errors.read()[-2000:]!r}")
    cpu_s = usage.ru_utime + usage.ru_stime
    # A short run may end between two looks.
    samples.append(Sample(max(lines, count), samples[-1].cpu_s if lines >= count else cpu_s))
    return samples, cpu_s, usage.ru_maxrss / 1024


def _read(path: Path, place: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(place)
        return file.read(1 << 22)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _cpu_at(samples: Sequence[Sample], lines: int) -> float:
    """
    Return the CPU seconds when a number of lines were there, between two samples in proportion.

    >>> _cpu_at([Sample(0, 1.0), Sample(10, 2.0), Sample(20, 4.0)], 15)
    3.0
    """
    for before, after in pairwise(samples):
        if before.lines < lines <= after.lines:
            share = (lines - before.lines) / (after.lines - before.lines)
            return before.cpu_s + share * (after.cpu_s - before.cpu_s)
    return samples[-1].cpu_s
