"""A disk that fills up during a run: it stops at once, and nothing that was paid for is lost."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.theatre import command, lines, playing, runner

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 16 MB, where that is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes the rights of root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left, and name the file that has them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return ballast


def test_full_disk_stops_the_run_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    """
    Exit 3 with the reason; every task that was paid for has its id on disk; with room again all is finished.
    """
    run_dir = small_disk / "out"
    with playing(tmp_path, SCENARIO) as theatre:
        manifest = tmp_path / "disk.yaml"
        manifest.write_text(MANIFEST.format(base_url=theatre.base_url), encoding="utf-8")
        words, environ = command("run", manifest, "-o", run_dir)
        with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
            while len(theatre.ledger) < 12:
                time.sleep(0.01)
            ballast = fill(small_disk)
            _, told = process.communicate(timeout=60)
        again = runner("resume", run_dir)
        with closing(sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)) as connection:
            known = {task_id for (task_id,) in connection.execute("SELECT task_id FROM jobs")}
        paid_by_then = {entry["task_id"] for entry in theatre.ledger}

        ballast.unlink()
        done = runner("resume", run_dir)
        paid = Counter(entry["prompt"] for entry in theatre.ledger)

    assert 3 == process.returncode, told
    assert "room" in told
    assert "Traceback" not in told + again.stderr
    assert 3 == again.returncode, again.stderr
    assert len(paid_by_then) < 60
    assert paid_by_then <= known
    assert 0 == done.returncode, done.stderr
    assert 60 == len(paid) == sum(paid.values())
    assert {"succeeded"} == {line["status"] for line in lines(run_dir).values()}
