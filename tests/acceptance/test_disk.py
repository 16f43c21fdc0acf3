"""A disk that fills up during a run: the run stops at once, and nothing that was paid for is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import disk_usage

import pytest

from tests.acceptance.simulator_process import results_by_id, run_simulator, runner, start

MANIFEST = """
version: 1
name: disk
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 30/s, poll: 100/s, in_flight: 30}}
poll: {{first: 100ms, interval: 100ms, max_interval: 200ms, timeout: 30s}}
retry: {{attempts: 2, base: 50ms, cap: 100ms}}
jobs:
  - {{id: 'job-${{n}}', repeat: 60, request: {{model: seedance-1-5-pro-251215, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}}}
"""

SCENARIO = "{version: 1, generate_s: [0.3, 1.0]}"
LOSING = "{version: 1, generate_s: 0.1, rules: [{name: lost, match: {prompt: kitten 1}, task: {end: lost}}]}"


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Mount a disk of 16 MB, or of the size that the test names, or skip the test if that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = getattr(request, "param", "16m")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Use up nearly all free space, and return the file that holds it; the last of it is left to the run."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        # At once: what the run frees when it finds no more space is for what it paid for.
        os.posix_fallocate(file.fileno(), 0, disk_usage(disk).free - (256 << 10))
    return filler


def test_full_disk_stops_the_run_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    """
    Exit code 3 with the reason; every paid task has its id on disk; once there is space, all jobs are finished.
    """
    run_dir = small_disk / "out"
    with run_simulator(tmp_path, SCENARIO) as simulator:
        manifest = tmp_path / "disk.yaml"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        with start("run", manifest, "-o", run_dir, stderr=subprocess.PIPE) as process:
            while len(simulator.ledger) < 12:
                time.sleep(0.01)
            filler = fill(small_disk)
            _, stderr = process.communicate()
        again = runner("resume", run_dir)
        filler.unlink()
        with closing(sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)) as connection:
            known_tasks = {task_id for (task_id,) in connection.execute("SELECT task_id FROM jobs")}
        paid_tasks = {entry["task_id"] for entry in simulator.ledger}

        done = runner("resume", run_dir)
        paid = Counter(entry["prompt"] for entry in simulator.ledger)

    assert 3 == process.returncode, stderr
    assert "no space left" in stderr
    assert "Traceback" not in stderr + again.stderr
    assert 3 == again.returncode, again.stderr
    assert len(paid_tasks) < 60
    assert paid_tasks <= known_tasks
    assert 0 == done.returncode, done.stderr
    assert 60 == len(paid) == sum(paid.values())
    assert {"succeeded"} == {line["status"] for line in results_by_id(run_dir).values()}


def test_nothing_is_submitted_while_there_is_no_space_for_a_video(tmp_path: Path) -> None:
    """
    Exit code 3 before the first POST: a video would be paid for and have no place.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 192 << 20)
        with run_simulator(tmp_path, SCENARIO) as simulator:
            manifest = tmp_path / "disk.yaml"
            manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
            full = runner("run", manifest, "-o", disk / "out")
            posted = len(simulator.ledger)
            (disk / "filler").unlink()
            done = runner("run", manifest, "-o", disk / "out")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)

    assert (3, 0) == (full.returncode, posted)
    assert "nothing was submitted" in full.stderr
    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize("small_disk", ["200m"], indirect=True)
def test_a_lost_job_is_not_submitted_again_while_there_is_no_space(small_disk: Path, tmp_path: Path) -> None:
    """Exit code 3 before its second POST, too, though it was not pending when the command began."""
    out, manifest = small_disk / "out", tmp_path / "disk.yaml"
    with run_simulator(tmp_path, LOSING) as simulator:
        text = MANIFEST.format(base_url=simulator.base_url)
        manifest.write_text(text.replace("jobs:", "timeouts: {unknown_task: 50ms}\njobs:"), encoding="utf-8")
        first = runner("run", manifest, "-o", out, "--job", "job-1")
        with (small_disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 192 << 20)
        again = runner("rerun", out, "--class", "lost")
        posted = len(simulator.ledger)

    assert (1, 3, 1) == (first.returncode, again.returncode, posted), first.stderr + again.stderr
    assert "nothing was submitted" in again.stderr


@pytest.mark.parametrize("small_disk", ["2m"], indirect=True)
def test_a_disk_that_is_smaller_than_the_reserve(small_disk: Path, tmp_path: Path) -> None:
    """A disk that was never large enough is not called full: the message has what is free, and what has to be."""
    manifest = tmp_path / "disk.yaml"
    manifest.write_text(MANIFEST.format(base_url="http://127.0.0.1:9"), encoding="utf-8")

    refused = runner("run", manifest, "--simulate", "-o", small_disk / "out")

    assert 3 == refused.returncode
    assert "MB free, less than the reserve of 4.19 MB; nothing was submitted" in refused.stderr
