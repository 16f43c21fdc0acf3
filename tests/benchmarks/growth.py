"""What a job costs in a run of a thousand, ten thousand and a hundred thousand jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.end_to_end import SMALL_BYTES, rig_folder
from tests.benchmarks.rig import Row


def growth(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Whole runs of a growing number of jobs; then `status` and `report` of each."""
    asset = rig.video_file(memory / "small.mp4", SMALL_BYTES)
    first_ms = 0.0
    with rig.gateway(asset) as server:
        for count in (jobs // 10, jobs, jobs * 10):
            out, elsewhere = disk / f"run-{count}", memory / f"run-{count}"
            elsewhere.mkdir()
            out.mkdir()
            (out / "assets").symlink_to(elsewhere, target_is_directory=True)
            manifest = rig.manifest(rig_folder(disk), server.url, count, at_once=64)
            ran = rig.run(["-m", "runner", "run", manifest, "--new", "-o", out])
            server.check(count, elsewhere)
            status, report = (rig.run(["-m", "runner", command, out]) for command in ("status", "report"))
            cpu_ms = ran.cpu_s / count * 1000
            first_ms = first_ms or cpu_ms
            yield Row(
                f"CPU per job, {count:,} jobs, start and end included",
                f"{jobs // 10:,} jobs",
                "1.1x",
                "1.0x",
                f"{cpu_ms / first_ms:.2f}",
                f"{cpu_ms:.2f} ms, {ran.peak_mib:.0f} MiB; status {status.wall_s:.2f} s, "
                f"report {report.cpu_s / count * 1e6:.0f} us a job",
            )
